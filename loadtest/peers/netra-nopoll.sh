# netra with NETRA_SPIN_US=0, for ../shared/bench: see `make bench-peers`
. "$(dirname "${BASH_SOURCE[0]}")/netra.sh"
export NETRA_SPIN_US=0 NETRA_SHARDS=1
# The bench's ephemeral ports (10000-65000) overlap netra's own; a TIME_WAIT there would keep it from listening.
export NETRA_PROMETHEUS_PORT=7958 NETRA_PPROF_PORT=7957
