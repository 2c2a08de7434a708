#!/usr/bin/env bash
# Over a network with certificates on both sides: the server shows its own, and takes only clients that our authority
# signed. The name in the client's certificate is what the service knows it by.
set -eu
PATH=$PATH:$(cd "$(dirname "$0")" && pwd)/../build/bin
CULE_RUN=$(mktemp -d)
export CULE_RUN
unset CULE_BUS
trap 'kill $(jobs -p | tac) 2>/dev/null || true; wait; rm -rf "$CULE_RUN"' EXIT
ready() { # starts a program and waits until it says that it is
    mkfifo "$CULE_RUN/ready"
    CULE_READY_FD=3 "$@" 3>"$CULE_RUN/ready" &
    read -r <"$CULE_RUN/ready" && rm "$CULE_RUN/ready"
}
command -v certtool >/dev/null || exit 77 # skipped: no GnuTLS tools

cd "$CULE_RUN"
key() { certtool --generate-privkey --key-type ecdsa --outfile "$1.key" 2>>log; }
certificate() { # NAME LINE…: signed by the authority
    local name=$1
    shift
    printf '%s\n' "cn = $name" 'expiration_days = 2' "$@" >"$name.cfg"
    key "$name"
    certtool --generate-certificate --load-privkey "$name.key" --load-ca-certificate ca.pem --load-ca-privkey ca.key \
        --template "$name.cfg" --outfile "$name.pem" 2>>log
}
printf '%s\n' 'cn = our authority' ca cert_signing_key 'expiration_days = 2' >ca.cfg
key ca
certtool --generate-self-signed --load-privkey ca.key --template ca.cfg --outfile ca.pem 2>>log
certificate localhost tls_www_server 'dns_name = localhost' 'ip_address = 127.0.0.1'
certificate alice tls_www_client

# Port 0 lets the system choose one, which the server tells.
ready cule-ipc serve --log-level info --listen tls:127.0.0.1:0,cert=localhost.pem,key=localhost.key,ca=ca.pem \
    --each 'echo "hello, $CULE_PEER_CERT"' 2>serve.log
port=$(sed -n 's/.*listening.*tls:127.0.0.1:\([0-9]*\).*/\1/p' serve.log)
cule-ipc call "tls:127.0.0.1:$port,ca=ca.pem,cert=alice.pem,key=alice.key" my 0x4000
cule-ipc call "tls:127.0.0.1:$port,ca=ca.pem" my 0x4000 2>>log || echo "without a certificate: status $?"
cule-ipc call "tcp:127.0.0.1:$port" my 0x4000 --timeout 5s 2>>log || echo "without TLS: status $?"

# Prints:
# hello, alice
# without a certificate: status 8
# without TLS: status 3
