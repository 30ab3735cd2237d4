# shellcheck shell=bash disable=SC2015,SC2016,SC2034,SC2154
# bus_seldom.sh: the functions of bus.sh that a script calls seldom; and what it says when something is wrong.

# --- errors -------------------------------------------------------------------------------------------------------

# _bus_fail CODE [WORDS] [HINT] [NAME]: one line on stderr; returns the code's exit status.
_bus_fail() {
  _bus_bytes || local LC_ALL=C # bytes are seen: no control, bidi or invisible sign gets through
  local _code _status _message _hint _line
  while IFS=$'\t' read -r _code _status _message _hint; do
    [[ $_code == "$1" ]] || continue
    _line="${2:-$_message}${4:+: ${4:0:128}}; ${3:-$_hint}"
    printf 'bus: %s\n' "${_line//[^[:print:]]/?}" >&2
    return "$_status"
  done <"$_bus_schemas/errors.tsv"
  _line=${2:-$1}
  printf 'bus: %s; run `bus doctor`\n' "${_line//[^[:print:]]/?}" >&2
  return 70
}

# _bus_explain OUTPUT [KEY VALUE]…: fails with the error that the last line of sqlite3's output tells, or the one before the
# two lines that show where in the SQL. Newer ones leave out the number behind the words. What is not there is named after
# the script's parameters, as errors.about does it.
_bus_explain() {
  local _line=$1 _text _code
  [[ $_line != *'^--- error here' ]] || { _line=${_line%$'\n'*}; _line=${_line%$'\n'*}; }
  _line=${_line##*$'\n'}
  [[ $_line != *"unable to open database"* ]] ||
    { _bus_fail unsafe_file "$_bus_file can't be opened" "check the permissions of file and folder"; return; }
  [[ $_line != *": No space left on device" ]] || { _bus_fail disk_full; return; } # what bash puts aside for a process to read
  [[ $_line =~ [Ee]rror[^:,]*[:,]\ (stepping,\ |in\ prepare,\ )?(.*)$ ]] ||
    { _bus_fail fault "SQLite failed: ${_line:-without a word}"; return; }
  _text=${BASH_REMATCH[2]}
  [[ ! $_text =~ ^(.*)\ \([0-9]+\)$ ]] || _text=${BASH_REMATCH[1]}
  case $_text in
    "database is locked" | "database table is locked"*) _bus_fail busy ;;
    "attempt to write a readonly database")
      _bus_fail unsafe_file "$_bus_file can't be opened for writing" "check the permissions of file and folder"
      ;;
    "disk I/O error") # so it is called, too, when there is no room for what SQLite makes beside the file to open it
      if [[ ! -s $_bus_file-wal ]] && (($(command stat -f -c %a -- "${_bus_file%/*}" 2>/dev/null || echo 16) < 16)); then
        _bus_fail disk_full
      else
        _bus_fail io_error
      fi
      ;;
    "database disk image is malformed" | "malformed database schema"*) _bus_fail damaged ;;
    "database or disk is full") _bus_fail disk_full ;;
    "string or blob too big") _bus_fail payload_too_large ;;
    "file is not a database") _bus_fail not_a_bus "$_bus_file is not a bus" ;;
    *)
      _code=${_text#CHECK constraint failed: }
      if [[ $_code =~ ^([a-z_]+)(:\ (.*))?$ ]]; then
        _code=${BASH_REMATCH[1]} _text=${BASH_REMATCH[3]}
        [[ $_code != invalid_payload || $_text == *" "* ]] || _text="the payload is no $_text"
        shift
        _bus_meant "$_code: $_text" "$@"
        _bus_fail "$_code" "$_text" "" "$REPLY"
      elif [[ $_text == *" constraint failed: "* || $_text == "cannot store "* ]]; then
        _bus_fail invalid_value "$_text"
      else
        _bus_fail fault "SQLite failed: $_text"
      fi
      ;;
  esac
}

# _bus_meant ERROR [KEY VALUE]…: what is not there, which is one of the script's parameters, in REPLY; SQL can't tell it. See
# bus/errors.py and bus/refusals.py.
_bus_meant() {
  local _keys=''
  REPLY=''
  case $1 in
    'unknown_agent: ') _keys=' from agent ' ;;
    'unknown_session: ') _keys=' session ' ;;
    'unknown_message: ' | 'lease_lost: ') _keys=' receipts ' ;;
    'unknown_type: '*' message type' | 'unknown_type: '*' state type') _keys=' type ' ;;
    'unknown_type: '*' agent type') _keys=' to type ' ;;
  esac
  while (($# > 2)) && [[ -z $REPLY ]]; do
    [[ $_keys != *" ${2%%[#:]*} "* ]] || REPLY=$3
    shift 2
  done
  REPLY=${REPLY#'["'} REPLY=${REPLY%'"]'}
}

# --- what is seldom ---------------------------------------------------------------------------------------------------

# _bus_else STATUS INPUT ARGUMENT…: where sqlite3 could not do it the bus command does, with INPUT to read; else STATUS
# stands. What the caller's own loop reads from stdin is left alone.
_bus_else() {
  local _status=$1 _input=$2 _command
  ((_status == _bus_elsewhere)) || return "$_status"
  shift 2
  # The one of the checkout; else of what pip put the functions into: a folder of its own, an environment, a system.
  _command=$_bus_here/../../bin/bus
  [[ $_bus_schemas == "$_bus_here/../../schemas" ]] || _command=$_bus_here/../bin/bus
  [[ -x $_command ]] || _command=$_bus_here/../../../../bin/bus
  [[ -x $_command ]] || _command=bus
  _command=${BUS_COMMAND:-$_command}
  type -P -- "$_command" >/dev/null ||
    { _bus_fail fault "there is no bus command" "install agent-bus, or name it with BUS_COMMAND"; return; }
  (
    export BUS_URL BUS_NOW TRACEPARENT BUS_READER BUS_ERRORS=text
    set +o posix # which knows no <(…) before bash 5.1
    eval 'exec "$_command" "$@" < <(printf %s "$_input" 2>/dev/null)'
  )
}

# Takes the steps up in `_file` by the names alone, as bus/store/url.py does: the kernel would go up from where a link
# leads. Those at the beginning of a relative path are left: what is above the working directory the kernel knows.
_bus_upward() {
  while [[ $_file =~ ^(.*/)?[^/]*[^./][^/]*/+(\./+)*\.\./+(.*)$ ]]; do
    _file=${BASH_REMATCH[1]}${BASH_REMATCH[3]}
  done
}

# Says what is wrong with the file that _bus_locate found.
_bus_unsafe() {
  [[ ! -L $_bus_file ]] || { _bus_fail unsafe_file "$_bus_file is a symbolic link" "name the file itself"; return; }
  [[ -e $_bus_file ]] || { _bus_fail no_bus "there is no bus at $_bus_file"; return; }
  [[ -f $_bus_file ]] || { _bus_fail not_a_bus "$_bus_file is not a file"; return; }
  [[ -O $_bus_file && -r $_bus_file && -w $_bus_file && -w ${_bus_file%/*}/ ]] ||
    { _bus_fail unsafe_file "$_bus_file can't be read and written here" "check owner and permissions of file and folder"; return; }
  _bus_fail unsafe_file "$_bus_file is mounted without its folder" "mount the folder: the -wal file belongs to the bus"
}

# The moment that BUS_NOW gives, or moves by seconds, in `_rows`.
_bus_moved() {
  if [[ $BUS_NOW == [+-]* ]]; then
    [[ ! $BUS_NOW =~ ^[+-][0-9]+ ]] || _rows="strftime('%Y-%m-%d %H:%M:%f', 'now', '${BASH_REMATCH[0]} seconds')"
  else
    _bus_literal "$BUS_NOW"
    _rows=$REPLY
  fi
}

# Whether the path has a sqlite3 that is new enough.
_bus_has_sqlite3() {
  [[ $(exec sqlite3 -version 2>/dev/null) =~ ^3\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 38))
}

# _bus_failed OUTPUT [KEY VALUE]…: fails as sqlite3 did, or with _bus_elsewhere; 0 when it shall queue and try again.
_bus_failed() {
  [[ $_begin != .timeout* || $1 != *"database is locked"?(" (5)") ]] || { _bus_queue=16; return 0; }
  if ((${_status:-0} > 128)) && REPLY=$(builtin kill -l "$_status" 2>/dev/null); then # by ulimit -f or for want of memory
    [[ $_begin != 'begin;' ]] || { _bus_fail fault "sqlite3 was ended by SIG$REPLY"; return; }
    _bus_fail outcome_unknown "sqlite3 was ended by SIG$REPLY, and it may or may not have happened"
    return
  fi
  [[ $1 != *"malformed JSON"* && ($1 != *"temp file for here-document: "* || $1 == *"No space left on device") ]] &&
    _bus_has_sqlite3 || return "$_bus_elsewhere"
  _bus_explain "$@"
}

# A transaction, in `_begin`, that waits for its turn, and for a checkpoint if one is due. The turn is a lock of a descriptor
# which sqlite3 has from the shell; it ends with the process. Where there is no flock, or the turn does not come, it goes
# without. Both are read from pipes: .system would make sqlite3 deaf to interrupts, and tell among the results how they ended.
_bus_in_turn() {
  _bus_queue=$((_bus_queue > 0 ? _bus_queue - 1 : 0))
  _begin=$'.read "|exec flock -w 2.5 5 >/dev/null 2>&1"\n'${_checkpoint:+$_bus_checkpointing}$'\nbegin immediate;'
}

# What keeps the WAL small: one connection holds the write lock while another checkpoints, because before SQLite 3.51.3 a
# checkpoint that races with a commit can lose it. Both are of one process, so that no checkpoint outlives its guard. The
# transaction behind it begins the WAL anew; a process that opens the file later would not know that it was checkpointed.
# (With -bail, sqlite3 3.53 ends after the SQL of a -cmd.)
_bus_checkpointing="
.read \"|set -f;IFS=;exec sqlite3 -batch -bail -init /dev/null \$BUS_FILE '.timeout 2500' 'begin immediate' '.connection 1' \
\$BUS_OPEN '.dbconfig no_ckpt_on_close on' 'pragma wal_checkpoint(passive)' >/dev/null 2>&1\""

# How its second connection is opened, in `_checkpoint`.
_bus_checkpoint() {
  local _name=${_bus_file//\\/\\\\}
  _name=${_name//\"/\\\"}
  _checkpoint=".open \"file://${_name//$'\n'/\\n}?mode=rw\""
}

# --- who lives --------------------------------------------------------------------------------------------------------

# _bus_process PID: when it started, in REPLY (clock ticks after the boot); not for a zombie.
_bus_process() {
  local _stat=
  local -a _fields
  { read -r -d '' _stat <"/proc/$1/stat" || :; } 2>/dev/null
  IFS=' ' read -r -a _fields <<<"${_stat##*) }" # the command before it may hold spaces and parentheses
  [[ -n ${_fields[19]:-} && ${_fields[0]} != [ZX] ]] && REPLY=${_fields[19]}
}

# _bus_place: this host, boot and namespace, in `_host`, `_boot` and `_namespace`, as bus/liveness.py tells them; fails where
# nothing can be told of processes.
_bus_place() {
  [[ /proc/self -ef /proc/$BASHPID ]] && read -r _host </proc/sys/kernel/hostname &&
    read -r _boot </proc/sys/kernel/random/boot_id &&
    _namespace=$(command readlink /proc/self/ns/pid && { command readlink /proc/self/ns/time || :; }) || return
  _namespace=${_namespace%$'\n''time:[4026531834]'}
  _namespace=${_namespace/$'\n'}
} 2>/dev/null

# _bus_is_dead "AGENT|HOST|PID|NAMESPACE|START|BOOT": whether that process is known to be gone.
_bus_is_dead() {
  local _host _boot _namespace _its_host _its_pid _its_namespace _its_start _its_boot
  IFS='|' read -r _ _its_host _its_pid _its_namespace _its_start _its_boot <<<"$1"
  [[ -n $_its_pid && -n $_its_boot ]] && _bus_place && [[ $_its_host == "$_host" ]] || return
  [[ $_its_boot == "$_boot" ]] || return 0
  [[ $_its_namespace == "$_namespace" ]] || return
  ! _bus_process "$_its_pid" || [[ $REPLY != "$_its_start" ]] && ! _bus_is_hidden "$_its_pid"
}

# _bus_is_hidden PID: whether there is such a process, and /proc does not show it to us (hidepid, see proc(5)).
_bus_is_hidden() {
  local REPLY
  [[ ! -e /proc/$1/stat ]] || return
  REPLY=$(LC_ALL=C builtin kill -0 "$1" 2>&1) || [[ $REPLY == *"not permitted"* ]]
}

# What a dead holder had leased goes back, unless it was started again since it was found dead (:was): then :agent is
# null for a moment, and nobody's is given back.
_bus_give_back="update temp.sqlite_parameters set value = (select agent_id from agent_registry where agent_id = :agent
and agent_id || '|' || host || '|' || pid || '|' || pid_namespace || '|' || process_started_at || '|' || boot_id = :was)
where key = ':agent';
.read messages/give_back.sql
update temp.sqlite_parameters set value = substr(:was, 1, instr(:was, '|') - 1) where key = ':agent';"

# _bus_relieve HOLDERS: gives back what the dead among them had leased; 1 when none of them is known to be dead.
_bus_relieve() {
  local _holder _any=1
  while IFS= read -r _holder; do
    _bus_is_dead "$_holder" || continue
    _bus_sql write "$_bus_give_back" agent "${_holder%%|*}" was "$_holder" || return
    _bus_ring "$REPLY"
    _any=0
  done <<<"$1"
  return $_any
}

# --- the functions that are called seldom -----------------------------------------------------------------------------

initialize_agent_coordination() { _bus_else "$_bus_elsewhere" "" init >/dev/null; }

# register_agent ID TYPE MILESTONE SESSION [CAPABILITIES_JSON] [PID]: under an id that is there it is a restart
register_agent() {
  _bus_arguments 4 6 "ID TYPE MILESTONE SESSION [CAPABILITIES_JSON] [PID]" "$@" || return
  local REPLY IFS=' ' _host _boot _namespace _former _operations='.read agents/register.sql'
  local -a _new=(agent "$1" type "$2" milestone "$3" session "$4")
  # The database refuses JSON that is no array as if it were none.
  [[ -z ${5:-} || $5 =~ ^[[:space:]]*\[ ]] ||
    { _bus_fail invalid_json "capabilities are a JSON array" "write '[\"bash\", \"python\"]'"; return; }
  [[ -z ${5:-} ]] || _new+=(capabilities:json "$5")
  if [[ -n ${6:-} ]]; then
    _bus_number "$6" || return
    _new+=(pid# "$REPLY")
    if _bus_place; then
      _bus_process "$REPLY" ||
        { _bus_fail usage "there is no process $6" "give the pid of the agent itself, or none"; return; }
      _new+=(host "$_host" pid_namespace "$_namespace" process_started_at# "$REPLY" boot_id "$_boot")
    fi
  fi
  if _bus_sql read '.read agents/identity.sql' agent "$1"; then
    _former=${REPLY%$'\n'}
    ! _bus_is_dead "$_former" || _operations="$_bus_give_back"$'\n.output /dev/null\n.read agents/register.sql\n.output'
    _bus_sql write "$_operations" was "$_former" "${_new[@]}"
  else
    (return $?)
  fi || { _bus_else $? "" register --type "$2" --milestone "$3" --session "$4" ${5:+"--capabilities=$5"} \
    ${6:+"--pid=$6"} -- "$1" >/dev/null; return; }
  [[ $_operations == .read* ]] || _bus_ring "$REPLY"
}

# update_agent_status ID STATUS: what an agent that has ended held goes back
update_agent_status() {
  _bus_arguments 2 2 "ID STATUS" "$@" || return
  local REPLY _operations=$'.output /dev/null\n.read agents/heartbeat.sql' _command=heartbeat
  case $2 in
    completed | failed | terminated)
      _operations=$'.read messages/give_back.sql\n.output /dev/null\n.read agents/retire.sql' _command=retire
      ;;
  esac
  _bus_sql write "$_operations"$'\n.output' agent "$1" status "$2" ||
    { _bus_else $? "" $_command --status "$2" -- "$1" >/dev/null; return; }
  _bus_ring "$REPLY"
}

# whether checkpoints can be of this type; if not, the command says of which
_bus_checkpoint_type() { [[ $1 == @(manual|automatic|phase_completion|error_recovery) ]] || return "$_bus_elsewhere"; }

# create_agent_checkpoint ID [TYPE] [SNAPSHOT_JSON] [FILE…]: prints its id
create_agent_checkpoint() {
  _bus_arguments 1 9999 "ID [TYPE] [SNAPSHOT_JSON] [FILE...]" "$@" || return
  _bus_bytes || local LC_ALL=C
  local REPLY _rows _big=x _file _files='' _snapshot=${3-} _path _digest _size
  local -a _options=()
  [[ -n $_snapshot ]] || _snapshot='{}'
  for _file in "${@:4}"; do
    [[ -f $_file ]] && _path=$(command realpath -s -- "$_file" 2>/dev/null && printf x) &&
      _digest=$(exec sha256sum 2>/dev/null <"$_file") && _size=$(exec wc -c <"$_file") ||
      { _bus_fail usage "the file $_file can't be read" "name a readable file"; return; }
    _options+=(--file "$_file")
    _bus_literal "${_path%$'\n'x}" || REPLY=null # a path that is not UTF-8
    _files+="${_files:+, }json_object('path', $REPLY, 'sha256', '${_digest%% *}', 'size', $((_size)))"
  done
  _bus_checkpoint_type "${2:-manual}" &&
    _bus_sql write '.read checkpoints/create.sql' agent "$1" type "${2:-manual}" snapshot:json "$_snapshot" files# "json_array($_files)" ||
    { _bus_else $? "$_snapshot" checkpoint create --type "${2:-manual}" --snapshot - ${_options[@]+"${_options[@]}"} -- "$1"; return; }
  REPLY=${REPLY#'{"checkpoint_id":"'}
  _bus_print "${REPLY%%\"*}"
}

# get_session_status SESSION: a JSON object
get_session_status() {
  _bus_arguments 1 1 SESSION "$@" || return
  local REPLY
  _bus_sql read '.read sessions/show.sql' session "$1" || { _bus_else $? "" session show --json -- "$1"; return; }
  [[ -n $REPLY ]] || { _bus_fail unknown_session "" "" "$1"; return; }
  _bus_print "${REPLY%$'\n'}"
}

# list_session_agents SESSION: a JSON array
list_session_agents() {
  _bus_arguments 1 1 SESSION "$@" || return
  local REPLY
  local -a _parts
  _bus_sql read $'.read sessions/show.sql\n.read agents/agents.sql' session "$1" || { _bus_else $? "" agents --session="$1" --json; return; }
  [[ -n $REPLY ]] || { _bus_fail unknown_session "" "" "$1"; return; }
  _bus_parts "$REPLY" $'\n'
  local IFS=,
  _bus_print "[${_parts[*]:1}]"
}

# --- recovery: it looks at processes and files, so the bus command does it ---------------------------------------------

# detect_interrupted_sessions: a line each, under a head; or one that says there are none
detect_interrupted_sessions() {
  _bus_else "$_bus_elsewhere" "" interrupted
}

# recover_milestone_session SESSION [OPTION]: says what is left and what can be done; with an OPTION does it
recover_milestone_session() {
  _bus_arguments 1 2 "SESSION [OPTION]" "$@" || return
  _bus_else "$_bus_elsewhere" "" recover ${2:+"--apply=$2"} -- "$1"
}

# resume_planning_agents SESSION: the dead are marked failed, their messages go back, their commands are started again
resume_planning_agents() {
  _bus_arguments 1 1 SESSION "$@" || return
  _bus_else "$_bus_elsewhere" "" recover --apply resume --respawn -- "$1"
}

# complete_planning_session SESSION: when all its artifacts are there
complete_planning_session() {
  _bus_arguments 1 1 SESSION "$@" || return
  _bus_else "$_bus_elsewhere" "" recover --apply complete -- "$1"
}

# create_milestone_from_recovered_planning SESSION [ID]: a milestone and .milestones/active/ID.yaml, from milestone-plan
create_milestone_from_recovered_planning() {
  _bus_arguments 1 2 "SESSION [ID]" "$@" || return
  _bus_else "$_bus_elsewhere" "" recover --apply create-milestone ${2:+"--milestone=$2"} -- "$1"
}

# start_session_monitor [SECONDS]: in the background; it logs to .milestones/logs/session-monitor.log
start_session_monitor() {
  _bus_else "$_bus_elsewhere" "" monitor --detach --interval="${1:-300}"
}

# stop_session_monitor: 1 when none runs
stop_session_monitor() {
  _bus_else "$_bus_elsewhere" "" monitor --stop
}

# cleanup_stale_coordination [MINUTES]: marks failed who, and what, was silent for so long (else session_timeout)
cleanup_stale_coordination() {
  local REPLY
  [[ -z ${1:-} ]] || _bus_number "$1" || return
  _bus_else "$_bus_elsewhere" "" cleanup --stale${1:+="${REPLY}m"}
}

# cleanup_failed_sessions [HOURS]: abandons those that failed so long ago (else failed_session_hours)
cleanup_failed_sessions() {
  local REPLY
  [[ -z ${1:-} ]] || _bus_number "$1" || return
  _bus_else "$_bus_elsewhere" "" cleanup --failed${1:+="${REPLY}h"}
}

# get_session_recovery_status: a JSON object: total, active, paused, completed, failed, abandoned, stale, of the last 7 days
get_session_recovery_status() {
  _bus_else "$_bus_elsewhere" "" session counts --json
}

show_recovery_help() {
  _bus_print "$(exec cat <<'END'
After a crash:
  detect_interrupted_sessions                    which sessions do not go on by themselves
  recover_milestone_session SESSION              what is left of one, and what can be done
  recover_milestone_session SESSION OPTION       do it: complete, resume, restart, create-milestone, abandon
Planning sessions:
  resume_planning_agents SESSION                 give back what the dead held, start their commands again
  complete_planning_session SESSION              when all artifacts are there
  create_milestone_from_recovered_planning SESSION [ID]
                                                 a milestone from milestone-plan, and .milestones/active/ID.yaml
Before the next one:
  start_session_monitor [SECONDS]                look every 300 s, and when a process dies; it logs into
                                                 .milestones/logs/session-monitor.log
  stop_session_monitor                           end it; 1 when none runs
  cleanup_stale_coordination [MINUTES]           mark failed what was silent for so long
  cleanup_failed_sessions [HOURS]                abandon what failed so long ago
  get_session_recovery_status                    counts of the last 7 days, as JSON
END
)"
}
