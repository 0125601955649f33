#!/bin/sh
# After the files have gone.
# deb: remove, purge, or upgrade. rpm: 0, or 1 before a newer one.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
case "$1" in
purge)
	# Secrets that nobody owns any more would lie around.
	rm -rf /etc/batchreset /etc/systemd/system/batchreset-*.service.d
	;;
upgrade | failed-upgrade | abort-* | disappear | 1) ;;
*)
	if [ -d /etc/batchreset ] && [ -n "$(ls -A /etc/batchreset)" ]; then
		echo "batchreset: /etc/batchreset stays, with its secrets. 'apt-get purge batchreset' or 'rm -r /etc/batchreset' removes it."
	fi
	;;
esac
