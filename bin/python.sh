# shellcheck shell=bash
# bus_python TREE VENV EXTRAS: sees that TREE/VENV holds what pyproject.toml asks for, with the extras.
#
# It is finished by a stamp that carries pyproject's checksum, and the path of the tree, whose code it runs: an interrupted
# one has no stamp and is made again, as is one that was copied, moved, or whose Python is gone; two at once wait for each
# other on a lock. The usual case costs one cksum.
bus_python() {
  local tree=$1 venv=$1/$2 extras=$3 wanted python
  wanted="$(cksum <"$tree/pyproject.toml") $tree $extras"
  [[ -x $venv/bin/python && -r $venv/stamp && $(<"$venv/stamp") == "$wanted" ]] && return 0
  for python in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      "$python" "$tree/bin/prepare" "$tree" "$venv" "$extras" "$wanted"
      return
    fi
  done
  echo "bus: no Python is here that is new enough; install Python 3.11 or newer" >&2
  return 70
}
