"""What is secret by its name: a key is one to a degree, and its value decides the rest."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from keisei.redaction.rule import Rule

# How far a key marks its value as a secret. Hidden is ...
KEYLIKE = 1  # what looks like a key: no short text, no identifier, no path
CODE = (
    2  # what is no word, algorithm (`sha256`) or short identifier (`GPIO17`), and numbers from 1000
)
PASS = 3  # what is no word, and whole numbers from 1000 on
KEY = 4  # all but a word of at most five letters and a whole number
ALWAYS = 5  # all

# A key is split into words (api_key, apiKey, API-KEY). These make it secret where they end it, and
# also where they end its last word (dbpassword); elsewhere in it they make it a PASS.
_PASSWORDS = (
    "password passwords passwd pwd pswd passphrase passcode secret secrets credential credentials "
    "creds"
).split()
_ENDINGS = tuple(_PASSWORDS)
# These do where they are its last word.
_LAST = {
    **dict.fromkeys("mnemonic mnemonics psk pw seedphrase".split(), ALWAYS),
    **dict.fromkeys(
        "bearer connstr cookie cookies dsn jwt webhook webhooks authorization".split(),
        KEY,
    ),
    **dict.fromkeys("auth cvv dbpass mfa rootpass smtppass sshpass totp userpass".split(), PASS),
    **dict.fromkeys("hmac otp sas sig signature".split(), CODE),
    "pat": KEYLIKE,
}
# These are the owners of a `key` or a `token` (also run together: accesskey) that can be no other.
_OWNERS = frozenset(
    "access anthropic api auth aws azure bearer bot clearml cohere comet consumer csrf datadog "
    "deploy discord encryption gcp gemini github gitlab groq hf hmac huggingface jwt mistral "
    "mlflow neptune npm oauth openai openrouter personal private pypi refresh replicate sas secret "
    "security sendgrid sentry signing slack ssh stripe subscription telegram twilio vault wandb "
    "webhook".split()
)
# A `key` of these may be another kind of key; a `token` may be one of a vocabulary whoever owns it.
_DOUBTFUL_OWNERS = frozenset(
    "account activation admin aes app application cipher client data decryption fernet google gpg "
    "host hub license master product project root rsa server service session shared ssl storage "
    "symmetric tls together user wallet xsrf".split()
)
_PAIRS = {
    **{(owner, kind): KEY for owner in _OWNERS for kind in ("key", "keys", "token")},
    **{(owner, kind): KEYLIKE for owner in _DOUBTFUL_OWNERS for kind in ("key", "keys")},
    **{(owner, "token"): KEY for owner in "admin ci id identity service session".split()},
    **{(owner, "tokens"): KEY for owner in "access api auth bearer refresh".split()},
    **{("pass", end): ALWAYS for end in "code key phrase word".split()},
    **{
        (first, end): ALWAYS
        for first in "backup mnemonic recovery secret seed wallet".split()
        for end in ("phrase", "words")
    },
    **{
        (first, end): PASS
        for first in "fa auth backup mfa otp pin recovery security sms totp verification".split()
        for end in ("code", "codes")
    },
    **dict.fromkeys([("connection", "string"), ("conn", "str"), ("conn", "string")], KEY),
    ("webhook", "url"): KEY,
    ("webhook", "urls"): KEY,
}
# Whose `pass` and `pin` are secrets; others are ways through a model, and legs of a chip.
_PASS_OWNERS = {""} | frozenset(
    "account admin ansible basic become bind broker cert database db elastic email es ftp git "
    "grafana http https imap influx jdbc jenkins key keystore ldap login mail mariadb mongo mqtt "
    "my mysql neo nexus oracle pg pgsql postgres postgresql proxy rabbit rabbitmq redis registry "
    "root sasl sftp smtp sql ssh ssl sudo svc truststore user vault vnc vpn web wifi".split()
)
_PIN_OWNERS = {""} | frozenset("account card device door my phone secret security sim user".split())
# A key that ends so holds the length, number, path or kind of a secret ...
_HARMLESS_ENDS = frozenset(
    "age alg algorithm attempts attr attribute bits bytes column count counts dim dir directory "
    "disabled enabled encoding env expiration expires expiry field fields file filename files "
    "folder format header heads help helper hint home idx index interval kind label len length "
    "lifetime limit location manager max memory min mode name names num number path paths pattern "
    "policy position prompt provider regex region required retries rotation rules scope scopes "
    "size sock socket source status store strength timeout ttl type types var variable "
    "version".split()
)
# ... and so does one that begins with a quantity.
_QUANTITIES = frozenset("num nb max min total".split())

# A key that says nothing by itself, and much below another one.
_IS_PART = Rule(r"(?i:keys?|pass|pin|codes?|urls?|phrase|words|string)")
_WORDS = Rule(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LONGEST_KEY = 100
_LONGEST_VALUE = 4096

_LETTERS = r"[^\W\d_]"
_ALGORITHM = r"(?i:sha|md|fp|bf|u?int|b?float|rs|hs|es|ps|aes|crc|oauth|tls|krb|http)[-_]?\d{1,4}"
_PART = rf"(?:{_ALGORITHM}|{_LETTERS}{{1,24}}+\d{{0,2}}+|\d{{1,3}}+{_LETTERS}{{0,2}}+)(?![^\W_])"
_IDENTIFIER = rf"[\W_]{{0,3}}+{_PART}(?:[\W_]{{1,3}}+{_PART})*+[\W_]{{0,3}}+"
_NUMBER = r"[-+]?[\d.,_]{1,40}+(?:e[-+]?\d{1,3})?+[%a-z]?"
_SHARE = r"\d{1,7}+/\d{1,7}+"
_PATH = r"(?:~|\.{1,2})?/[\w.\-/ @+]*+|[A-Za-z]:\\[^\n]*+"
_SCHEME = r"(?i:basic|bearer|digest|token|apikey|negotiate)"
_WORDS_ALONE = rf"(?!{_SCHEME}\s){_LETTERS}{{1,24}}+(?:[\s_-]{{1,3}}+{_LETTERS}{{1,24}}+){{0,3}}+"
# What stands in for a secret, or is a mark of a vocabulary.
_MARK = (
    r"\W*+|<[^\W\d_<>\s|_-][^\W\d<>]{0,60}+>|\$\{[\w.:]{1,60}+\}|\{\{[^{}\n]{0,60}+\}\}"
    r"|[\[<(]?(?i:redacted|hidden|masked|filtered|removed|none|null|true|false)[\])>]?"
    r"|SecretStr\([^()]*+\)"
)
_VOCABULARY = r"\s*+(?:<[^\n]*+|\[[^\n]*\]|\{[^\n]*\}|\|[^\n]*\||#[^\n]*+|.{0,7}+|\S*\s(?s:.*))\s*+"
_HARMLESS = {
    KEYLIKE: Rule(rf"{_MARK}|{_VOCABULARY}|{_IDENTIFIER}|{_NUMBER}|{_PATH}|\w{{1,12}}+://\S*+"),
    CODE: Rule(
        rf"{_MARK}|<[^<>\n]*+>|{_ALGORITHM}|{_WORDS_ALONE}|(?=.{{1,7}}\Z){_IDENTIFIER}|{_PATH}"
        r"|(?=[^\n]*[A-Za-z])\S{1,200}\s[^\n]*+"
    ),
    PASS: Rule(
        rf"{_MARK}|{_ALGORITHM}|{_WORDS_ALONE}|{_SHARE}|\d{{1,3}}|0?\.\d{{1,9}}|<[^<>\n]*+>"
    ),
    KEY: Rule(rf"{_MARK}|{_LETTERS}{{1,5}}|{_SHARE}|\d{{1,6}}|<[^<>\n]*+>|\[\w{{1,16}}\]"),
    ALWAYS: Rule(_MARK),
}


def secrecy(key: str) -> int:
    """Return how far a key's name marks its value as a secret; 0 where it does not.

    ``wandb_api_key``, ``DB_PASSWORD`` and ``hf_token`` do; ``max_new_tokens``, ``use_cls_token``,
    ``sort_key`` and ``password_length`` do not; of ``user_token`` the value decides.
    """
    return _secrecy(key[-_LONGEST_KEY:])


def is_part(key: str) -> bool:
    """Return whether a key may be the second half of the one that it stands below."""
    return _IS_PART.regex.fullmatch(key) is not None


def secrecy_below(parent: str, key: str) -> int:
    """Return how far a key marks its value as a secret where it stands below another one.

    `{"wandb": {"key": ...}}` and `{"recovery": {"code": ...}}` are read as the pairs that they
    are; which of the many kinds of keys one is, its value decides.
    """
    level = secrecy(key)
    if level or not parent or not is_part(key):
        return level
    level = secrecy(f"{parent}_{key}")
    return min(level, KEYLIKE) if key.lower().startswith("key") else level


@lru_cache(maxsize=4096)
def _secrecy(key: str) -> int:
    words = [word.lower() for word in _WORDS.regex.findall(key)]
    while words and words[-1].isdigit():
        words.pop()  # MY_TOKEN_1
    if not words or words[-1] in _HARMLESS_ENDS or words[0] in _QUANTITIES:
        return 0
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last.endswith(_ENDINGS):
        return ALWAYS
    levels = [_PAIRS.get(pair, 0) for pair in pairwise(words)]
    levels += [_together(word) for word in words]
    levels += [PASS for word in words if word.endswith(_ENDINGS)]
    levels.append(_LAST.get(last, 0))
    if last.endswith("token"):
        levels.append(KEY if words == ["token"] else KEYLIKE)
    elif last == "pass":
        levels.append(PASS if before in _PASS_OWNERS else KEYLIKE)
    elif last == "pin" and before in _PIN_OWNERS:
        levels.append(CODE)
    return max(levels)


def _together(word: str) -> int:
    """Return the level of a word that joins two (`accesskey`, `hftoken`, `clientsecret`)."""
    if word.endswith(("apikey", "apikeys")):
        return KEY
    for kind in ("key", "keys", "token"):
        if word.endswith(kind):
            return _PAIRS.get((word.removesuffix(kind), kind), 0)
    return _PAIRS.get((word.removesuffix("tokens"), "tokens"), 0) if word.endswith("tokens") else 0


def is_harmless(value: str, level: int) -> bool:
    """Return whether a text is no secret, although its key has this level."""
    return _HARMLESS[level].regex.fullmatch(value[:_LONGEST_VALUE]) is not None


def is_harmless_number(value: float, level: int) -> bool:
    """Return whether a number is no secret, although its key has this level."""
    if isinstance(value, float) or level in (KEYLIKE, KEY):
        return True
    return level < ALWAYS and abs(value) < 1000
