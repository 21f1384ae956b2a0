"""Many secrets, in each way that one comes in, and as many values that only look like one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keisei import AppConfig, KeiseiError, SessionManager
from keisei.config.text import serialize_config
from keisei.errors import describe, quoted
from keisei.journal.reader import read_run
from keisei.redaction import HIDDEN, redact, redact_text
from keisei.testing import MemoryTracker
from keisei.trackers.base import RunInfo

# A text with `@` where its secret stands; each test puts another one there.
BY_KEY = [
    "db_pw=@", "DB_PASS=@", "pass: @", "user_pw: '@'", "psk=@", "hmac=@", "hmac_key: @",
    "signature: @", "SMTP_PASS=@", "export FOO_TOKEN=@ BAR=1", "TOTP_SECRET=@",
    "aws_session_token = @", "[default]\naws_secret_access_key = @\n", "license_key=@",
    "user_token=@", "session_key: '@'", "basic_auth: me:@", "client_secret_value: @",
    "secret_key_base: @", "PGPASSWORD=@ psql", "self.token = '@'", "token=f'@'", "password:@",
    "password => '@'", "api_key = os.environ.get('X', '@')", "password: |\n  @\nnext: 1",
    "secrets:\n  a: @\n  b:\n    - @\nother: 1", "user=me password=@ host=h", "jwt_token: @",
    "Server=x;Uid=u;Pwd=@;", "AccountName=a;AccountKey=@==;EndpointSuffix=x",
    "Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey=@=", "auth_token=>@",
    'password := "@"', "password -> @", "ANSIBLE_BECOME_PASS=@", "key=@&x=1", "token=@&user=a",
    "api_key%3D@", "%7B%22api_key%22%3A%22@%22%7D", "a=%7B%22password%22%3A%20%22@%22%2C%22b%22",
]  # fmt: skip
IN_URLS = [
    "https://a.blob.core.windows.net/c?sv=2020&se=2024-01-01&sp=r&sig=@%3D",
    "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=@",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=@%2F20240101&X-Amz-Security-Token=@",
    "https://storage.googleapis.com/b/o?GoogleAccessId=x&Expires=1&Signature=@",
    "https://hooks.slack.com/services/T024BE7LD/B0123456/@",
    "https://discord.com/api/webhooks/123456789012345678/@",
    "https://outlook.office.com/webhook/@/IncomingWebhook/@/abc",
    "https://x.webhook.office.com/webhookb2/@/IncomingWebhook/@/y",
    "https://api.telegram.org/bot123456789:@/sendMessage",
    "https://open.feishu.cn/open-apis/bot/v2/hook/@", "https://mattermost.example/hooks/@",
    "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=@",
    "https://oapi.dingtalk.com/robot/send?access_token=@",
    "https://chat.googleapis.com/v1/spaces/AAAA/messages?key=@&token=@",
    "https://hooks.zapier.com/hooks/catch/123456/@/", "https://hc-ping.com/@",
    "https://maker.ifttt.com/trigger/x/with/key/@", "https://f.azurewebsites.net/api/x?code=@==",
    "https://maps.googleapis.com/x?key=@&y=1", "sentry: https://@@o1.ingest.sentry.io/2",
    "git clone https://oauth2:@@gitlab.com/x", "psql postgresql://u:@@h/db", "bolt://neo4j:@@h",
    "jdbc:oracle:thin:scott/@@host:1521/x", "jdbc:mysql://h/db?user=u&password=@",
]  # fmt: skip
IN_LISTS = [
    "['--token', '@']", '["--password", "@"]', '["-H", "X-Api-Key: @"]', "('password', '@')",
    '[["Authorization", "Bearer @"]]', "[('api_key', '@')]", "[b'authorization', b'Basic @']",
    "env:\n- name: DB_PASSWORD\n  value: @\n- name: X\n  value: 1",
    '{"name": "API_TOKEN", "value": "@"}', "backup_codes: ['@', '@']",
]  # fmt: skip
NESTED = [
    '{"a": "{\\"token\\": \\"@\\"}"}',
    '{"a": "{\\"b\\": \\"{\\\\\\"token\\\\\\": \\\\\\"@\\\\\\"}\\"}"}',
    "ValueError: {'headers': {'Authorization': 'Bearer @'}, 'auth': {'password': '@'}}",
    "{'credentials': {'user': '@', 'more': {'x': ['@', {'y': '@'}]}, 'z': '@'}, 'b': 1}",
    '{"credentials": {"user": "@",\n "more": {"x": "@"}},\n "b": 1}',
    "Credentials(user='u', password='@')", "requests.get(url, auth=('me', '@'))",
    "auth=HTTPBasicAuth('me', '@')", "Config(db=DB(host='h', dbpass='@'), token='@')",
    '{"auths": {"https://index.docker.io/v1/": {"auth": "@"}}}', "headers={'X-Auth': '@'}",
]  # fmt: skip
ON_COMMAND_LINES = [
    "curl -u me:@ https://h/x", "curl --user 'me:@' https://h", "curl --oauth2-bearer @ h",
    "curl -H 'Authorization: Bearer @' https://h", 'curl -H "PRIVATE-TOKEN: @" h',
    "curl -d '{\"password\": \"@\"}' h", "curl -d 'user=a&password=@' h",
    "curl -b 'session=@; token=@' h", "wget --http-password=@ h", "sshpass -p @ ssh h",
    "mysql -u root -p@ db", "docker login -u a -p @ r", "redis-cli -a @ -h h", "x --db-pass @",
    'x --password "@ 7"', "set -x SSHPASS @", "set -gx API_KEY '@'", "setenv DB_PASSWORD @",
    "http -a me:@ GET h", "wandb login --relogin @", "hf auth login --token @",
]  # fmt: skip
IN_FILES = [
    "machine api.wandb.ai\n  login user\n  password @\n", "default login a password @",
    "machine api.wandb.ai login user password @", "machine h.x\n\tlogin u\n\tpassword @",
    "machine h.x account a password @ login b", "//registry.npmjs.org/:_authToken=@",
    "user:\n    client-key-data: @\n    token: @\n    password: @\n",
    "apiVersion: v1\nkind: Secret\ndata:\n  foo: @\n  bar: @\ntype: Opaque\n",
    '{"kind": "Secret", "data": {"foo": "@"}, "stringData": {"bar": "@"}}',
    "<password>@</password>", '<add key="password" value="@"/>',
    '<entry name="api_token">@</entry>',
    "-----BEGIN OPENSSH PRIVATE KEY-----\\n@\\n-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n@\n-----END PGP PRIVATE KEY BLOCK-----",
    "me:$2y$10$@N9qo8uLOickgx2ZMRZoMye",
    "PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 2\nAAAA@\n@\nPrivate-MAC: 1",
]  # fmt: skip
SAID = [
    "login failed for me with password '@'", "the password is @", 'password "@" is wrong',
    "Invalid API key: @", "Incorrect API key provided: @", "token @ expired", "invalid token '@'",
    "Set-Cookie: session=@; Path=/", "x-api-key: @", "Proxy-Authorization: Basic @=",
    "authorization: AWS4-HMAC-SHA256 Credential=@/x, SignedHeaders=h, Signature=@",
]  # fmt: skip
PHRASES = [
    "mnemonic: canary ability able about above absent absorb abstract absurd abuse access accident",
    'seed_phrase = "canary ability able about above absent absorb abstract absurd abuse access"',
    "passphrase: canary horse battery staple", "recovery phrase: canary horse battery staple",
    "machine h.x login u password canary", "{'password': 'canary'}", "pin: 4821", "pin=4821",
    "{'password': 12345678}", "otp: 482913", "totp=482913", "mfa_code: 482913", "2fa_code=482913",
    "cvv: 4821", "the password is canary2-Blue!Sky", "password was: canary2",
    "the password: canary2x",
    "login with password 'canary2-Blue!Sky'", "ANSIBLE_BECOME_PASS=canary2-Blue!Sky",
]  # fmt: skip
WORDS = ("canary", "4821", "482913", "12345678")
TEMPLATES = [
    *BY_KEY, *IN_URLS, *IN_LISTS, *NESTED, *ON_COMMAND_LINES, *IN_FILES, *SAID,
]  # fmt: skip


def canary(number: int) -> str:
    """Return a secret of one's own, as random as a key."""
    return f"c{number:02d}Nry{number * 7919 + 0x1F3A5B7C:x}Qz"


def planted(number: int) -> str:
    """Return a text with its canary."""
    text = TEMPLATES[number].replace("@@", "\0").replace("@", canary(number))
    return text.replace("\0", f"{canary(number)}@")


def data_with(secret: str) -> list[Any]:
    """Return plain data in which a key, a neighbour or a shape says what the secret is."""
    return [
        {"pw": secret}, {"pass": secret}, {"otp": secret}, {"hmac": secret}, {"sig": secret},
        {"mnemonic": f"{secret} able"}, {"seed_phrase": f"{secret} able"}, {"user_token": secret},
        {"args": ["train.py", "--api-key", secret, "--x", "1"]}, {"env": [f"DB_PASSWORD={secret}"]},
        {"headers": [["Authorization", f"Bearer {secret}"]]}, {"h": [("X-Api-Key", secret)]},
        {"env": [{"name": "DB_PASSWORD", "value": secret}]},
        {"kind": "Secret", "data": {"x": secret}},
        {"body": json.dumps({"a": {"password": secret}})}, {"auth": ("me", secret)},
        {"body": json.dumps({"b": json.dumps({"l": [1, {"secret": secret}]})})},
        {"auth": {"user": "me", "pass": secret}}, {"cookies": {"sid": secret}},
        {"credentials": [secret]}, {"token": {"value": secret}}, {"access_tokens": [secret]},
        {"password": {"a": {"b": [secret]}}}, {"x": [{"y": {"client_secret": secret}}]},
        {"license_key": secret}, {"key": "password", "value": secret}, ["password", secret],
        {"webhook": f"https://hooks.example/{secret}"}, {"sas_token": secret}, {"psk": secret},
        {"wandb": {"key": secret}}, {"recovery": {"codes": [secret]}}, {"git": {"pat": secret}},
        {"k": "password", "v": secret}, {"cmd": ["curl", "-u", f"me:{secret}", "https://h"]},
        {"cmd": ["/usr/bin/mysql", f"-p{secret}"]}, {"cmd": ("sshpass", "-p", secret, "ssh")},
        {"dsn": f"https://{secret}@x/1"}, {"connection_string": f"Server=x;Pwd={secret}"},
    ]  # fmt: skip


def named_error(text: str) -> str:
    """Return what is said of somebody else's error."""
    return describe(RuntimeError(text))


WAYS: dict[str, Callable[[str], object]] = {
    "text": redact_text,
    "a value": lambda text: redact({"free": [text]}),
    "JSON in a string": lambda text: redact_text(json.dumps({"log": text})),
    "an error of keisei's": lambda text: str(KeiseiError(text)),
    "an error of somebody else's": named_error,
    "a quoted text": lambda text: quoted(text, 1000),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_canary_passes(way: str) -> None:
    """Of many secrets none is left, and each leaves its mark."""
    # Escaped newlines are lines to nobody who reads a file: those are for the other ways.
    lines = way in ("text", "a value", "an error of keisei's")
    numbers = [n for n in range(len(TEMPLATES)) if lines or "\n" not in TEMPLATES[n]]
    leaks = []
    for number in numbers:
        shown = str(WAYS[way](planted(number)))
        if canary(number) in shown or HIDDEN not in shown:
            leaks.append((planted(number), shown))
    assert leaks == []
    assert len(TEMPLATES) >= 78


@pytest.mark.parametrize("text", PHRASES)
def test_words_and_numbers_are_secrets_where_the_key_says_so(text: str) -> None:
    """A mnemonic is made of words, and a PIN is a number."""
    hidden = redact_text(text)
    assert HIDDEN in hidden
    assert not any(word in hidden for word in WORDS)


def test_no_canary_passes_in_data() -> None:
    """By key, in pairs, in JSON in strings, at any depth; and so in the repr and in JSON."""
    leaks = []
    for number, data in enumerate(data_with(canary(1))):
        shown = [repr(redact(data)), redact_text(repr(data)), redact_text(json.dumps(data))]
        leaks += [(number, data, text) for text in shown if canary(1) in text]
    assert leaks == []


class FreeConfig(AppConfig):
    """A config that takes anything."""

    free: Any = None


class Failing(MemoryTracker):
    """A tracker whose error quotes what it was told."""

    text = ""

    def start(self, run: RunInfo) -> Any:
        """Fail."""
        raise RuntimeError(self.text)


def written(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.requirement("CFG-3", "LOG-4")
def test_no_file_of_a_run_holds_a_canary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Config, events, evaluations, log lines, tracebacks, a tracker's errors: all are clean."""
    texts = [planted(number) for number in range(len(TEMPLATES))]
    data = [entry for number in (90, 91) for entry in data_with(canary(number))]
    config = FreeConfig(free={"texts": texts, "data": json.loads(json.dumps(data))})
    config.logging.log_dir = tmp_path / "runs"
    config.logging.progress = False
    user = logging.getLogger("a.user")
    user.setLevel(logging.INFO)
    with SessionManager(config) as session:
        handler = session.log_handler()
        user.addHandler(handler)
        for number, text in enumerate(texts):
            session.log_event("said", {"text": text, "lines": [text]})
            session.log_event(f"said {text}")
            session.log_evaluation({"text": text, "score": number}, step=number)
            user.info("%s", text)
            try:
                raise ValueError(text)
            except ValueError:
                user.exception("failed")
        for entry in data:
            session.log_event("data", entry)
        tracker = Failing()
        tracker.text = " ".join(texts[:5])
        assert session.setup_remote_logging(tracker) is False
        user.removeHandler(handler)
        directory = Path(session.run_artifact_dir)
        summary = repr(session.get_session_summary())
    said = "".join(record.getMessage() for record in caplog.records if record.name == "keisei")
    planted_canaries = [canary(number) for number in [*range(len(TEMPLATES)), 90, 91]]
    files = {**written(directory), "summary": summary.encode(), "said": said.encode()}
    found = [
        (one, name)
        for one in planted_canaries
        for name, text in files.items()
        if one.encode() in text
    ]
    assert found == []
    assert sum(len(text) for text in files.values()) > 100_000


def test_what_must_stay_raw_stays(tmp_path: Path) -> None:
    """A switch for each call: an event, an evaluation and a record are written as they are."""
    config = FreeConfig()
    config.logging.log_dir = tmp_path / "runs"
    user = logging.getLogger("a.raw.user")
    user.setLevel(logging.INFO)
    text = "password=raw-canary-1"
    with SessionManager(config) as session:
        handler = session.log_handler()
        user.addHandler(handler)
        session.log_event("raw", {"text": text}, redact=False)
        session.log_event("large", {"text": text + "x" * 300_000}, redact=False)
        session.log_evaluation({"text": text}, redact=False)
        user.info(text, extra={"redact": False})
        session.log_event("hidden", {"text": text})
        session.log_evaluation({"text": text})
        user.info(text)
        user.removeHandler(handler)
        directory = Path(session.run_artifact_dir)
    got: dict[str, Any] = {event.name: event.data for event in read_run(directory).events()}
    events = {name: data["text"] for name, data in got.items() if data}
    assert events["raw"] == text
    assert events["large"].startswith(text)
    assert events["hidden"] == f"password={HIDDEN}"
    for name in ("training.log", "evaluation.log"):
        content = (directory / name).read_text()
        assert content.count(text) == content.count(f"password={HIDDEN}") == 1


def test_a_large_event_is_clean_and_whole(tmp_path: Path) -> None:
    """A megabyte of rows, and one of text, keep everything but their secrets, in their order."""
    rows = [{"id": n, "text": f"row {n}", "api_key": canary(n)} for n in range(12_000)]
    text = "".join(f"line {n}: password={canary(n)}\n" for n in range(20_000))
    deep: Any = {"password": "canary"}
    for _ in range(90):
        deep = [deep]
    config = FreeConfig()
    config.logging.log_dir = tmp_path / "runs"
    with SessionManager(config) as session:
        session.log_event("rows", rows)
        session.log_metrics({"loss": 1.0})
        session.log_event("text", text)
        session.log_event("deep", deep)
        directory = Path(session.run_artifact_dir)
    got = {event.name: event.data for event in read_run(directory).events()}
    assert got["rows"] == [{**row, "api_key": HIDDEN} for row in rows]
    assert got["text"] == "".join(f"line {n}: password={HIDDEN}\n" for n in range(20_000))
    assert "canary" not in str(got["deep"])


# Names and values of real training configs, which say no secret.
HARMLESS = {
    "initializer_token": "toy", "modifier_token": "<new1>", "placeholder_token": "<cat-toy>",
    "boi_token": "<img>", "image_token": "<image>", "answer_token": "</answer>",
    "user_token": "<|user|>", "assistant_token": "<|assistant|>", "tool_call_token": "<tool_call>",
    "end_of_turn_token": "<eot>", "sep_token": "[SEP]", "pad_token": "<pad>", "unk_token": "[UNK]",
    "trigger_token": "sks", "class_token": "dog", "instance_token": "sks", "num_tokens": "5",
    "shared_keys": "obs", "service_keys": "q", "host_key": "loss", "app_key": "x",
    "eos_token": "</s>",
    "session_key": "user_id", "cnn_keys": "image", "obs_keys": "a", "root_key": "data",
    "dist_token": "cls", "mask_token": "<mask>", "speaker_token": "[S]", "im_end_token": "<im_end>",
    "account_keys": "a", "shared_key": "mem", "storage_key": "replay", "master_key": "k",
    "reserved_token": "<|reserved_special_token_250|>", "bos_token": "<|begin_of_text|>",
    "extra_token": "<extra_id_99>", "instruction_token": "[INST]", "eot_token": "<|endoftext|>",
    "cost_per_token": "3.2e-05", "time_per_token": "0.0123456789", "last_token": "50256",
    "pin_memory": "true", "pin": "GPIO17", "led_pin": "D13", "forward_pass": "fused",
    "low_pass": "butterworth", "pass": "forward", "render_pass": "depth_pass", "hmac": "sha256",
    "auth": "none", "auth_mode": "oidc", "signature": "serving_default", "sig": "ab",
    "webhook": "none", "cookie_policy": "lax", "seed": "12345678", "seed_words": "none",
    "otp": "none", "psk_order": "4", "key": "loss", "sort_key": "length", "data_key": "images",
    "cache_key": "3f9a0c71e2d4b8aa", "partition_key": "user_id", "foreign_key": "user.id",
    "public_key": "ssh-ed25519 AAAA me@host", "tokenizer": "meta-llama/Llama-2-7b-hf",
    "max_new_tokens": "128", "tokens_per_batch": "4k", "token_budget": "8192",
    "stop_tokens": "</s>", "credentials_file": "/run/credentials", "dataset_key": "cifar100",
    "token_path": "~/.cache/huggingface/token", "response_token": "### Response:",
    "user_prompt_token": "<start_of_turn>user", "action_token": "<act_12>", "product_key": "sku",
    "codebook_token": "<c_1023>", "sha": "9f3c0a71e2d4b8aa9f3c0a71e2d4b8aa9f3c0a71",
    "run_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "commit": "64c6cb5", "code": "resnet50",
    "license_key": "MIT", "client_key": "client_0", "project_key": "vision", "words": "many",
    "server_key": "param_server", "attention_key": "query", "hotkey": "ctrl-k", "basic": "yes",
    "api_base": "https://api.x.com/v1", "refresh_every": "10k", "access": "public-read",
    "auth_url": "https://x/y", "api": "openai-v1", "rest_api": "v1beta1", "pat": "*.py",
    "trigger_phrase": "a photo of sks dog", "hook": "after_step", "code_path": "src/train.py",
}  # fmt: skip
HARMLESS_DATA = [
    {"token": 50256}, {"token": "dog"}, {"api_keys": ["x"]}, {"shared_keys": ["obs", "act"]},
    {"stop_tokens": ["</s>", "<|eot|>"]}, {"pad_token": {"content": "<pad>", "lstrip": False}},
    {"pin": 17}, {"pass": 1}, {"auth": {"type": "oidc", "enabled": True}}, {"password": None},
    {"api_key": "<your key>"}, {"api_key": "${OPENAI_API_KEY}"}, {"token": "[PAD]"}, {"auth": None},
    {"kind": "Pod", "data": {"x": "y"}}, {"name": "lr", "value": 0.1}, ["password", "email"],
    {"name": "optimizer", "value": "adamw"}, ["key", "value"], ["--token-type", "word"],
    {"auth": "oauth2"}, {"signature": "(x, y) -> z1"}, {"pass": "3/10"}, {"env": {"key": "obs-v1"}},
    {"wandb": {"key": "loss1"}}, ["redis-cli", "-p", "6379"],
    {"cookies": False}, {"secrets": {}}, {"password": ""}, {"added_tokens": {"<pad>": 0}},
]  # fmt: skip
HARMLESS_TEXTS = [
    "python train.py --lr 1e-4 --tokenizer gpt2 --max-new-tokens 100 --seed 42",
    "https://huggingface.co/meta-llama/Llama-2-7b?revision=main&x=1", "basic auth is off",
    "https://docs.github.com/en/webhooks/about-webhooks", "code=200 OK, code=404",
    "https://github.com/o/r/actions/workflows/ci.yml", "pass@1 = 0.53, pass@10: 0.81",
    "https://hub.docker.com/r/library/python?key=sort", "pass 1/3: 0.1s", "sig=0.05",
    "the password is wrong; see token 5 and key model.layers.0.attn.weight", "pin: GPIO17",
    "Unexpected token '}' at line 3, column 12", "tokens: 1,234,567/8,900,000 (1.2e5 tok/s)",
    "KeyError: 'model.encoder.layers.11.attention.self.query.weight'", "auth: none",
    "token embedding 32000x4096 bfloat16", "docker run -u 1000:1000 -p 8080:80 img",
    "epoch 3: loss=0.12, lr=1e-4, key=value, tokens=12345678", "f(key='loss', token='<pad>')",
    "The token meta-llama/Llama-2-7b-hf was not found", "signature: (x: float, y: int) -> str",
    "machine learning login page password reset",
]  # fmt: skip


def test_there_are_no_false_alarms() -> None:
    """In data, in a text, on a command line, in a repr, in JSON, harmless values stay."""
    alarms: list[object] = []
    for key, value in HARMLESS.items():
        alone = {key: value}
        texts = [f"{key}={value}", f"--{key}={value}", f"{key}: {value}", f"--{key} {value}"]
        texts += [f"a({key}='{value}')", f"<{key}>{value}</{key}>", repr(alone), json.dumps(alone)]
        alarms += [alone] if redact(alone) != alone else []
        alarms += [text for text in texts if redact_text(text) != text]
    for data in HARMLESS_DATA:
        alarms += [data] if redact(data) != data else []
        alarms += [text for text in (repr(data), json.dumps(data)) if redact_text(text) != text]
    alarms += [text for text in HARMLESS_TEXTS if redact_text(text) != text]
    assert alarms == []
    assert len(HARMLESS) >= 80


def test_a_training_config_is_recorded_as_it_is() -> None:
    """Nothing in the recorded config is hidden that only looks like a secret."""
    free = {**HARMLESS, "more": [entry for entry in HARMLESS_DATA if isinstance(entry, dict)]}
    recorded = json.loads(serialize_config(FreeConfig(free=free), {}))
    assert recorded["free"] == free
