"""An identity provider for tests: real keys, a real HTTP server on loopback that publishes them, and tokens that it signs."""

import json
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

__all__ = ["FOREIGN_KEY", "NEW_KEY", "RSA_KEY", "Issuer", "public"]

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NEW_KEY = ec.generate_private_key(ec.SECP256R1())
FOREIGN_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public(name, key, algorithm):
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return json.loads(kind.to_jwk(key.public_key())) | {"kid": name, "alg": algorithm, "use": "sig"}


class Issuer:
    """An identity provider on loopback: it publishes its keys, counts how often they are fetched, and can be away."""

    def __init__(self):
        self.keys = [public("rsa-1", RSA_KEY, "RS256")]
        self.asked = Counter()
        self.away = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked[self.path] += 1
                documents = {"/keys": {"keys": outer.keys}, "/.well-known/openid-configuration": outer.discovery}
                found = None if outer.away else documents.get(self.path)
                self.send_response(503 if found is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.discovery = {"issuer": self.address, "jwks_uri": f"{self.address}/keys"}
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

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
