"""An identity provider for tests: real keys, a real HTTP server on loopback that publishes them, tokens that it signs, and people."""

import base64
import hashlib
import json
import secrets
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

__all__ = ["CLIENT", "FOREIGN_KEY", "NEW_KEY", "OIDC", "RSA_KEY", "Issuer", "public"]

CLIENT = "renewcast-pages"

OIDC = """
[serving.oidc]
issuer = "{address}"
audience = "renewcast"
caller_claim = "groups"
role_claim = "roles"
[serving.oidc.callers]
"staff" = "vendor"
"northwind" = "partner:p1"
[serving.oidc.roles]
"analysts" = "analyst"
"managers" = "csm"
"""
"""The config of a workspace that takes its tokens."""

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NEW_KEY = ec.generate_private_key(ec.SECP256R1())
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public(name, key, algorithm):
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return json.loads(kind.to_jwk(key.public_key())) | {"kid": name, "alg": algorithm, "use": "sig"}


class Issuer:
    """An identity provider on loopback: it publishes its keys, counts how often they are fetched, and can be away.

    It signs in, without asking, whoever `person` says; None is somebody who does not want to. `secret` is the client's, if it has one.
    """

    def __init__(self):
        self.person, self.secret, self.registered, self.codes = {}, None, "http://testserver/sign-in/back", {}
        self.keys = [public("rsa-1", RSA_KEY, "RS256")]
        self.asked = Counter()
        self.away = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked[self.path] += 1
                address = urlsplit(self.path)
                if address.path == "/authorize" and not outer.away:
                    self.send_response(302)
                    self.send_header("Location", outer.authorize(dict(parse_qsl(address.query))))
                    self.end_headers()
                    return
                documents = {"/keys": {"keys": outer.keys}, "/.well-known/openid-configuration": outer.discovery}
                found = None if outer.away else documents.get(self.path)
                self.send_response(503 if found is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def do_POST(self):
                outer.asked[self.path] += 1
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                found = None if outer.away else outer.redeem(form, self.headers.get("Authorization", ""))
                self.send_response(503 if outer.away else 400 if found is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(found or {"error": "invalid_grant"}).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.discovery = {
            "issuer": self.address,
            "jwks_uri": f"{self.address}/keys",
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token",
        }
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def authorize(self, asked):
        """Return where the browser goes on: with a code that is bound to what was asked, or with an error."""
        assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
        assert asked["redirect_uri"] == self.registered and "openid" in asked["scope"].split()
        if self.person is None:
            answer = {"error": "access_denied"}
        else:
            answer = {"code": secrets.token_urlsafe(16), "iss": self.address}
            self.codes[answer["code"]] = asked | {"claims": {"aud": CLIENT, "nonce": asked["nonce"]} | self.person}
        return f"{asked['redirect_uri']}?{urlencode(answer | {'state': asked['state']})}"

    def redeem(self, form, authorization):
        """Return tokens for a code, once, to the client that asked for it and knows the verifier; else None."""
        asked = self.codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        basic = f"Basic {base64.b64encode(f'{CLIENT}:{self.secret}'.encode()).decode()}"
        shown = authorization == basic if self.secret else form.get("client_id") == CLIENT
        good = asked is not None and shown and form["grant_type"] == "authorization_code"
        if not good or (asked["redirect_uri"], asked["code_challenge"]) != (form["redirect_uri"], challenge):
            return None
        return {"access_token": "opaque", "token_type": "Bearer", "id_token": self.token(**asked["claims"])}

    def token(self, key=RSA_KEY, *, algorithm="RS256", kid="rsa-1", headers=None, **claims):
        at = int(time.time())
        usual = {
            "iss": self.address,
            "aud": "renewcast",
            "sub": "ada",
            "iat": at,
            "exp": at + 300,
            "groups": ["staff", "everybody"],
            "roles": "analysts",
        }
        said = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(said, key, algorithm=algorithm, headers=({"kid": kid} if kid else {}) | (headers or {}))
