"""A stand-in for Google Cloud KMS and Azure Key Vault and for what gives out their tokens.

It does the real cryptography (AES-256-GCM, RSA-OAEP-256, RS256 by pyca/cryptography, CRC32C here) and refuses every
request that is not as the public definitions say: googleapis/googleapis google/cloud/kms/v1/service.proto,
Azure/azure-rest-api-specs keyvault data-plane 7.4 keys.json, RFC 7523, RFC 6749. It also does what a real service
will not do on demand: POST /stub with {"do": ...}, see Stub.control.

clouds.py DIRECTORY writes account.json, a service account's key, there, and prints its port on 127.0.0.1.
"""

import base64
import json
import re
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RING = "projects/p/locations/l/keyRings/r"
CONTEXT = re.compile(rb"app=pgseal,(check|v=1,keyring=[0-9a-f-]{36},purpose=(data|index),version=\d+)")
SCOPE = "https://www.googleapis.com/auth/cloudkms"
VAULT = "https://vault.azure.net"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
EMAIL = "pgseal@p.iam.gserviceaccount.com"


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status, body):
        super().__init__(status)
        self.status, self.body = status, body


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64url(text):
    assert not re.search(r"[^A-Za-z0-9_-]", text), "not base64url without padding"
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def google(status, name):
    return Refusal(status, {"error": {"code": status, "message": "canary-7291", "status": name}})


def azure(status, code, inner=None):
    error = {"code": code, "message": "canary-7291"}
    if inner:
        error["innererror"] = {"code": inner}
    return Refusal(status, {"error": error})


class Stub:
    def __init__(self, port, directory):
        self.base = f"http://127.0.0.1:{port}"
        self.account = rsa.generate_private_key(65537, 2048)
        self.tokens = {"brought-google": "google", "brought-azure": VAULT}
        self.lifetime = 3600
        self.faults = []
        self.calls = []
        self.wrong = []
        # By name: the key of each version, from 1, and the versions that are off.
        self.google_keys = {name: [secrets.token_bytes(32)] for name in ("main", "other")}
        self.azure_keys = {name: [self.vault_key()] for name in ("main", "other")}
        self.off = set()
        pem = self.account.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "key-1",
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "token_uri": f"{self.base}/token",
        }
        with open(f"{directory}/account.json", "w") as file:
            json.dump(account, file)

    @staticmethod
    def vault_key():
        return secrets.token_hex(16), rsa.generate_private_key(65537, 2048)

    def control(self, order):
        """rotate KEY; off KEY VERSION (from 1); revoke all tokens; lifetime of tokens; fault ON KIND TIMES; report."""
        action = order["do"]
        if action == "report":
            report = {"calls": self.calls, "wrong": self.wrong}
            self.calls, self.wrong, self.faults = [], [], []
            return report
        if action == "rotate":
            self.google_keys[order["key"]].append(secrets.token_bytes(32))
            self.azure_keys[order["key"]].append(self.vault_key())
        elif action == "off":
            self.off.add((order["key"], order["version"]))
        elif action == "revoke":
            self.tokens.clear()
        elif action == "lifetime":
            self.lifetime = order["seconds"]
        elif action == "fault":
            self.faults.append(order)
        else:
            raise AssertionError(f"no such action: {action}")
        return {}

    def fault(self, operation):
        for fault in self.faults:
            if fault["on"] == operation and fault["times"] > 0:
                fault["times"] -= 1
                return fault["kind"]
        return None

    def answer(self, method, target, headers, body):
        """The body of the answer; what a request should not be like ends in `wrong`."""
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query, strict_parsing=bool(url.query)).items()}
        if (method, url.path) == ("POST", "/stub"):
            return self.control(json.loads(body))
        for operation, wanted, pattern, handler in ROUTES:
            found = re.fullmatch(pattern, url.path)
            if method == wanted and found:
                self.calls.append(operation)
                kind = self.fault(operation)
                if isinstance(kind, dict):
                    raise Refusal(kind["status"], kind.get("body", "canary-7291"))
                return handler(self, found, query, headers, body, kind)
        raise AssertionError(f"no such request: {method} {target}")

    def check_bearer(self, headers, audience):
        scheme, _, token = headers.get("authorization", "").partition(" ")
        assert scheme == "Bearer" and token, "no bearer token"
        return self.tokens.get(token) == audience

    def issue(self, audience):
        token = "ya29." + secrets.token_urlsafe(24)
        self.tokens[token] = audience
        return token

    # Google Cloud KMS

    def google_request(self, headers, body, data):
        assert headers["content-type"] == "application/json"
        if not self.check_bearer(headers, "google"):
            raise google(401, "UNAUTHENTICATED")
        request = json.loads(body)
        fields = {data, data + "Crc32c", "additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c"}
        assert set(request) == fields, "other fields"
        found = []
        for name in (data, "additionalAuthenticatedData"):
            value, crc = base64.b64decode(request[name], validate=True), request[name + "Crc32c"]
            assert isinstance(crc, str) and crc == str(crc32c(value)), "not the CRC32C as a string"
            found.append(value)
        assert CONTEXT.fullmatch(found[1]), "not a context"
        return found

    def google_encrypt(self, found, _query, headers, body, kind):
        plaintext, data = self.google_request(headers, body, "plaintext")
        assert len(plaintext) == 32
        name = found["key"]
        if name not in self.google_keys:
            raise google(404, "NOT_FOUND")
        version = len(self.google_keys[name])
        if (name, version) in self.off:
            raise google(400, "FAILED_PRECONDITION")
        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self.google_keys[name][-1]).encrypt(nonce, plaintext, data)
        ciphertext = bytes([version]) + nonce + sealed
        if kind == "long":
            ciphertext *= 100
        answer = {
            "name": f"projects/123/locations/l/keyRings/r/cryptoKeys/{name}/cryptoKeyVersions/{version}",
            "ciphertext": b64(ciphertext),
            "ciphertextCrc32c": str(crc32c(ciphertext)),
            "verifiedPlaintextCrc32c": True,
            "verifiedAdditionalAuthenticatedDataCrc32c": True,
            "protectionLevel": "SOFTWARE",
        }
        changes = {
            "crc": {"ciphertextCrc32c": str(crc32c(ciphertext) ^ 1)},
            "no crc": {"ciphertextCrc32c": None},
            "unverified plaintext": {"verifiedPlaintextCrc32c": False},
            "unverified data": {"verifiedAdditionalAuthenticatedDataCrc32c": None},
            "other key": {"name": answer["name"].replace(f"/{name}/", "/mallory/")},
        }
        return answer | changes.get(kind, {})

    def google_decrypt(self, found, _query, headers, body, kind):
        ciphertext, data = self.google_request(headers, body, "ciphertext")
        keys = self.google_keys.get(found["key"])
        if keys is None:
            raise google(404, "NOT_FOUND")
        version = ciphertext[0]
        if (found["key"], version) in self.off:
            raise google(400, "FAILED_PRECONDITION")
        try:
            plaintext = AESGCM(keys[version - 1]).decrypt(ciphertext[1:13], ciphertext[13:], data)
        except (InvalidTag, IndexError, ValueError):
            raise google(400, "INVALID_ARGUMENT") from None
        if kind == "short":
            plaintext = plaintext[:16]
        answer = {"plaintext": b64(plaintext), "plaintextCrc32c": str(crc32c(plaintext)), "usedPrimary": True}
        changes = {"crc": {"plaintextCrc32c": str(crc32c(plaintext) ^ 1)}, "no crc": {"plaintextCrc32c": None}}
        return answer | changes.get(kind, {})

    def google_account(self, _found, _query, headers, body, _kind):
        assert headers["content-type"].startswith("application/x-www-form-urlencoded")
        form = parse_qs(body.decode(), strict_parsing=True)
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        [assertion] = form["assertion"]
        signed, _, signature = assertion.rpartition(".")
        try:
            self.account.public_key().verify(
                from_b64url(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            raise Refusal(400, {"error": "invalid_grant", "error_description": "canary-7291"}) from None
        head, claims = (json.loads(from_b64url(part)) for part in signed.split("."))
        assert head == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}, "not the JWT's header"
        issued = claims.pop("iat")
        assert abs(issued - time.time()) < 60, "not issued now"
        expected = {"iss": EMAIL, "scope": SCOPE, "aud": f"{self.base}/token", "exp": issued + 3600}
        assert claims == expected, "not the JWT's claims"
        return {"access_token": self.issue("google"), "expires_in": self.lifetime, "token_type": "Bearer"}

    def google_metadata(self, _found, query, headers, body, _kind):
        assert headers.get("metadata-flavor") == "Google" and not query and not body
        return {"access_token": self.issue("google"), "expires_in": self.lifetime, "token_type": "Bearer"}

    # Azure Key Vault

    def azure_request(self, found, query, headers, body):
        assert headers["content-type"] == "application/json"
        assert query == {"api-version": "7.4"}
        if not self.check_bearer(headers, VAULT):
            raise azure(401, "Unauthorized")
        request = json.loads(body)
        assert set(request) == {"alg", "value"} and request["alg"] == "RSA-OAEP-256"
        name = found["key"]
        if name not in self.azure_keys:
            raise azure(404, "KeyNotFound")
        return self.azure_keys[name], from_b64url(request["value"])

    def azure_wrap(self, found, query, headers, body, kind):
        versions, secret = self.azure_request(found, query, headers, body)
        assert len(secret) == 48, "not a key and a tag"
        if (found["key"], len(versions)) in self.off:
            raise azure(403, "Forbidden", "KeyDisabled")
        version, key = versions[-1]
        value = key.public_key().encrypt(secret, OAEP)
        kid = f"https://name.vault.azure.net/keys/{found['key'].capitalize()}/{version}"
        changes = {
            "other key": {"kid": kid.replace("/keys/", "/keys/x")},
            "no version": {"kid": kid.rpartition("/")[0]},
            "bad version": {"kid": kid + "/.."},
            "long": {"value": b64url(value * 5)},
            "padded": {"value": b64url(value) + "=="},
        }
        return {"kid": kid, "value": b64url(value)} | changes.get(kind, {})

    def azure_unwrap(self, found, query, headers, body, kind):
        versions, wrapped = self.azure_request(found, query, headers, body)
        numbers = [number for number, (version, _) in enumerate(versions, 1) if version == found["version"]]
        if not numbers:
            raise azure(404, "KeyNotFound")
        if (found["key"], numbers[0]) in self.off:
            raise azure(403, "Forbidden", "KeyDisabled")
        version, key = versions[numbers[0] - 1]
        try:
            secret = key.decrypt(wrapped, OAEP)
        except ValueError:
            raise azure(400, "BadParameter") from None
        if kind == "short":
            secret = secret[:32]
        return {"kid": f"https://name.vault.azure.net/keys/{found['key']}/{version}", "value": b64url(secret)}

    def azure_login(self, found, _query, headers, body, _kind):
        assert headers["content-type"].startswith("application/x-www-form-urlencoded")
        form = {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
        assert found["tenant"] == "tenant-1" and form.pop("client_id") == "client-1"
        assert form.pop("grant_type") == "client_credentials" and form.pop("scope") == VAULT + "/.default"
        if form == {"client_secret": "s~cr&t+1"}:
            return self.azure_token(expires_in=self.lifetime)
        if form == {"client_assertion_type": ASSERTION_TYPE, "client_assertion": "federated.j.wt"}:
            return self.azure_token(expires_in=self.lifetime)
        raise Refusal(401, {"error": "invalid_client", "error_description": "canary-7291"})

    def azure_token(self, **lifetime):
        return {"access_token": self.issue(VAULT), "token_type": "Bearer"} | lifetime

    def azure_metadata(self, _found, query, headers, _body, _kind):
        query.pop("client_id", None)
        assert query == {"api-version": "2018-02-01", "resource": VAULT} and headers.get("metadata") == "true"
        return self.azure_token(expires_in=str(self.lifetime))

    def azure_service(self, _found, query, headers, _body, _kind):
        assert query == {"api-version": "2019-08-01", "resource": VAULT}
        assert headers.get("x-identity-header") == "header-1"
        return self.azure_token(expires_on=str(int(time.time()) + self.lifetime))


KEY = f"/v1/{RING}/cryptoKeys/(?P<key>[A-Za-z0-9_-]+)"
ROUTES = [
    ("encrypt", "POST", f"{KEY}:encrypt", Stub.google_encrypt),
    ("decrypt", "POST", f"{KEY}:decrypt", Stub.google_decrypt),
    ("account", "POST", "/token", Stub.google_account),
    ("metadata", "GET", "/computeMetadata/v1/instance/service-accounts/default/token", Stub.google_metadata),
    ("wrapkey", "POST", "/keys/(?P<key>[A-Za-z0-9-]+)/wrapkey", Stub.azure_wrap),
    ("unwrapkey", "POST", "/keys/(?P<key>[A-Za-z0-9-]+)/(?P<version>[0-9a-f]{32})/unwrapkey", Stub.azure_unwrap),
    ("login", "POST", r"/(?P<tenant>[\w-]+)/oauth2/v2\.0/token", Stub.azure_login),
    ("imds", "GET", "/metadata/identity/oauth2/token", Stub.azure_metadata),
    ("service", "GET", "/msi/token", Stub.azure_service),
]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        stub = self.server.stub
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            status, answer = 200, stub.answer(self.command, self.path, headers, body)
        except Refusal as refusal:
            status, answer = refusal.status, refusal.body
        except (AssertionError, KeyError, ValueError) as error:
            stub.wrong.append(f"{self.command} {self.path}: {error!r}")
            status, answer = 400, {"error": {"status": "STUB", "code": "Stub"}}
        text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("location", f"{stub.base}/elsewhere")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.stub = Stub(server.server_port, sys.argv[1])
print(server.server_port, flush=True)
server.serve_forever()
