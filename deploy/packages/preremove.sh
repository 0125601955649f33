#!/bin/sh
# Before the files go: the services stop, each with the time that it has for what is under way.
# deb: remove, or upgrade. rpm: 0, or 1 before a newer one.
set -e
case "$1" in
upgrade | failed-upgrade | 1) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl disable --now batchreset-api.service batchreset-worker.service || true
	systemctl stop 'batchreset-worker@*.service' || true
	for wanted in /etc/systemd/system/multi-user.target.wants/batchreset-worker@*.service; do
		[ ! -L "$wanted" ] || systemctl disable "${wanted##*/}" || true
	done
fi
