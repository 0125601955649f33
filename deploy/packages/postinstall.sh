#!/bin/sh
# After the files are there. Nothing is started: the service does not know its Redis yet, and what is to be reset.
# deb: configure, and the version before, if there was one. rpm: 1, or 2 after an older one.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
case "$1 $2" in
"configure "?* | "2 "*)
	cat <<'TEXT'
batchreset: the processes of the version before go on until they are told to stop:
  systemctl restart batchreset-api batchreset-worker
TEXT
	;;
"configure " | "1 ")
	cat <<'TEXT'
batchreset is installed, and not started. It needs to know its Redis and what resets your phones:
/usr/share/doc/batchreset/systemd.md leads from here to the first reset.
TEXT
	;;
esac
