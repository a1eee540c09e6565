#!/usr/bin/env bash
# Debian packages that some tests and functions use. Prints each command before it runs it; where it may not install,
# says what will be skipped. Never fails: the test run lists what it skipped.
set -uo pipefail

# package → what needs it
needs=(
  "prometheus|tests against a real Prometheus server"
  "chromium|browser tests and screenshots"
  "fonts-dejavu|browser tests, screenshots and PDF files"
  "fonts-noto-core|browser tests, screenshots and PDF files"
  "libpango-1.0-0|PDF files"
  "libpangoft2-1.0-0|PDF files"
  "libharfbuzz0b|PDF files"
  "libharfbuzz-subset0|PDF files"
)

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "deps: no apt-get here; install by hand what you want to use:"
  printf '  %s\n' "${needs[@]//|/ for }"
  exit 0
fi

missing=()
reasons=()
for entry in "${needs[@]}"; do
  package=${entry%%|*}
  if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
    missing+=("$package")
    reasons+=("  ${package}: ${entry#*|}")
  fi
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
  become=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  become=(sudo -n)
else
  echo "deps: these packages are missing and this account may not install them; what needs them is skipped:"
  printf '%s\n' "${reasons[@]}"
  echo "deps: to install them: sudo apt-get install --no-install-recommends ${missing[*]}"
  exit 0
fi

run() {
  echo "deps: $*"
  # A program asking a question would wait for ever in CI.
  "${become[@]}" env DEBIAN_FRONTEND=noninteractive "$@" >/dev/null
}

run apt-get update -q || echo "deps: the package lists could not be refreshed; trying with those at hand"
if ! run apt-get install -q -y --no-install-recommends "${missing[@]}"; then
  # One package that a release does not have must not keep the others out.
  for package in "${missing[@]}"; do
    run apt-get install -q -y --no-install-recommends "$package" || echo "deps: $package could not be installed"
  done
fi
exit 0
