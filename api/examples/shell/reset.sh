#!/bin/sh
# Resets the phones of a list, waits for the end, and leaves a report. It needs batchreset in the PATH.
#
#   RUN_ID=nightly-2026-11-30 ./reset.sh phones.txt
#
# RUN_ID names this run of your pipeline. It is the key of the reset, too: the same script with the
# same RUN_ID and list finds what it has begun, and wipes nothing twice.
#
# From the environment: BATCHRESET_SERVER, and BATCHRESET_TOKEN_FILE or BATCHRESET_TOKEN (or a context
# of 'batchreset login'); MAX_FAILURES (5%), TIMEOUT (2h), REPORT (report.xml).
#
# It ends with 0 if every phone was reset, 2 if some were not, 124 if TIMEOUT was over: see
# 'batchreset help exit-codes'.
set -eu
: "${RUN_ID:?names this run of the pipeline, such as nightly-2026-11-30}"
list=${1:?is missing: the file with one phone a line}
report=${REPORT:-report.xml}

# Nothing is reset before the whole list was accepted.
run=$(batchreset run submit --file "$list" --run-id "$RUN_ID" --max-failures "${MAX_FAILURES:-5%}" --yes)

status=0
batchreset run watch "$run" --timeout "${TIMEOUT:-2h}" || status=$?

# A report that is not whole is worth nothing. A run that goes on after TIMEOUT has none yet.
batchreset run results "$run" --output junit >"$report" || rm -f "$report"
if [ "$status" -eq 124 ]; then
	echo "the run goes on: 'batchreset run watch $run' follows it, 'batchreset run cancel $run' ends it" >&2
fi
exit "$status"
