#!/usr/bin/env python3
"""Fetches pages through a beam gateway with libcurl, whose HTTP/3 proxying nobody here wrote.

Goal: CONNECT and CONNECT-UDP as libcurl speaks them over HTTP/3. Method: each --page VERSION=URL is fetched through the
gateway with a fresh connection; over HTTP/3 libcurl asks for CONNECT-UDP, else for CONNECT. Prints one JSON object
{url, status, http_version, bytes, sha256, error} each. Exit 0 when each was answered 200.

Run it with the python of scripts/venv:
  curl_masque.py --gateway 198.18.0.1:443 --ca ca.pem --token-file t --page 1.1=http://198.19.0.2/64 --page 3=https://...
"""

import argparse
import hashlib
import json
import sys

from curl_cffi import Curl, CurlError, CurlInfo, CurlOpt
from curl_cffi.const import CurlHttpVersion, CurlProxyType

LIMIT_S = 60
VERSIONS = {"1.1": CurlHttpVersion.V1_1, "3": CurlHttpVersion.V3ONLY}
NAMES = {2: "1.1", 3: "2", 30: "3"}


def fetch(options, version, url):
    digest, size, error = hashlib.sha256(), 0, None

    def take(chunk):
        nonlocal size
        digest.update(chunk)
        size += len(chunk)
        return len(chunk)

    curl = Curl()
    for option, value in {
        CurlOpt.URL: url.encode(),
        CurlOpt.HTTP_VERSION: VERSIONS[version],
        CurlOpt.PROXY: f"https://{options.gateway}".encode(),
        CurlOpt.PROXYTYPE: CurlProxyType.HTTPS3,
        CurlOpt.HTTPPROXYTUNNEL: 1,
        # Fields for the proxy go to the proxy alone.
        CurlOpt.HEADEROPT: 1,
        CurlOpt.PROXYHEADER: [b"Proxy-Authorization: Bearer " + options.token],
        CurlOpt.PROXY_CAINFO: options.ca.encode(),
        CurlOpt.CAINFO: options.ca.encode(),
        CurlOpt.NOPROXY: b"",
        CurlOpt.TIMEOUT: LIMIT_S,
        CurlOpt.WRITEFUNCTION: take,
        CurlOpt.VERBOSE: int(options.verbose),
    }.items():
        curl.setopt(option, value)
    try:
        curl.perform()
    except CurlError as failure:
        error = str(failure)
    status, spoken = curl.getinfo(CurlInfo.RESPONSE_CODE), curl.getinfo(CurlInfo.HTTP_VERSION)
    curl.close()
    seen = {"url": url, "status": status, "http_version": NAMES.get(spoken, str(spoken))}
    print(json.dumps({**seen, "bytes": size, "sha256": digest.hexdigest(), "error": error}), flush=True)
    return status == 200 and error is None


def main(argv):
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--gateway", required=True, help="host:port")
    flags.add_argument("--ca", required=True, help="PEM file of the authority to trust, for gateway and origin")
    flags.add_argument("--token-file", required=True)
    flags.add_argument("--page", action="append", required=True, metavar="VERSION=URL")
    flags.add_argument("--verbose", action="store_true")
    options = flags.parse_args(argv)
    with open(options.token_file, "rb") as file:
        options.token = file.read().strip()
    results = [fetch(options, *page.split("=", 1)) for page in options.page]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
