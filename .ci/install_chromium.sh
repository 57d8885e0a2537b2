#!/bin/sh
# A browser for tests/browser: Debian's, where this may be installed. Elsewhere those tests skip and say why.
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null 2>&1; then
        echo "a browser is here: $name"
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    if (apt-get install -y -q --no-install-recommends chromium || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }) >/dev/null 2>&1; then
        echo "installed Debian's chromium"
        exit 0
    fi
    echo "Debian's chromium could not be installed; the tests of the page in a browser skip"
else
    echo "no chromium here, and no right to install one; the tests of the page in a browser skip"
fi
