-- The bus: registry, messages, state, sessions, checkpoints, health log, configuration, enums, milestones.
--
-- Every rule that protects data stands here, as a constraint or a trigger, so that it holds for every writer: the
-- clients, the shell functions, a person at the sqlite3 prompt. What a trigger raises begins with a stable code; the
-- clients turn the code into words and an exit status (schemas/errors.tsv).
--
-- How a message travels: its row is written once and its `status` walks
--     scheduled -> ready -> leased -> acknowledged        and from each but the last to dead, from dead back to ready.
-- `due_at` is the next moment at which something happens to the row by itself: a scheduled one becomes ready, a lease
-- runs out, a ready one expires. Two partial indexes carry the traffic: `agent_messages_ready`, in the order messages
-- are taken, and `agent_messages_timers`, by mailbox, so that others' due rows cost a receiver nothing.

pragma application_id = 1098146163;  -- "AtBs"

-- The enums, as rows: a project adds its own with `bus types add`, and anything else is refused.

create table agent_types (
  name        text primary key constraint invalid_id check (length(name) between 1 and 128
    and name not glob '*[^A-Za-z0-9._:@-]*' and name not glob '[-.@]*' and instr(name, char(0)) = 0),
  description text not null default ''
) strict, without rowid;

create table message_types (
  name        text primary key constraint invalid_id check (length(name) between 1 and 128
    and name not glob '*[^A-Za-z0-9._:@-]*' and name not glob '[-.@]*' and instr(name, char(0)) = 0),
  description text not null default '',
  schema      text not null default '{"type":"object"}'
    constraint invalid_json check (json_valid(schema) and json_type(schema) = 'object')
) strict, without rowid;

create table state_types (
  name        text primary key constraint invalid_id check (length(name) between 1 and 128
    and name not glob '*[^A-Za-z0-9._:@-]*' and name not glob '[-.@]*' and instr(name, char(0)) = 0),
  description text not null default ''
) strict, without rowid;

create table operation_types (
  name        text primary key constraint invalid_id check (length(name) between 1 and 128
    and name not glob '*[^A-Za-z0-9._:@-]*' and name not glob '[-.@]*' and instr(name, char(0)) = 0),
  description text not null default '',
  artifacts   text not null default '[]'  -- [{"key": state key, "weight": share of the progress}, …]
    constraint invalid_json check (json_valid(artifacts) and json_type(artifacts) = 'array')
) strict, without rowid;

insert into agent_types (name, description) values
  ('milestone-coordinator', 'plans a milestone and hands out its tasks'),
  ('milestone-executor', 'takes tasks and does them'),
  ('milestone-planner', 'breaks a goal into a milestone'),
  ('scope-analyzer', 'planning: what belongs to the work'),
  ('estimation-agent', 'planning: how long it takes'),
  ('risk-assessor', 'planning: what may go wrong'),
  ('kiro-strategy', 'planning: design, spec, task, execute'),
  ('planning-aggregator', 'planning: puts the parts together'),
  ('design-phase', 'execution: the design'),
  ('spec-phase', 'execution: the specification'),
  ('task-phase', 'execution: the list of tasks'),
  ('execute-phase', 'execution: the work itself'),
  ('git-operations', 'branches, commits, merges'),
  ('progress-tracker', 'watches and reports progress'),
  ('validation', 'checks results'),
  ('feature-implementation', 'builds one feature'),
  ('retry-handler', 'tries again what failed');

insert into state_types (name, description) values
  ('checkpoint', 'where a piece of work stands'),
  ('progress', 'how far it is'),
  ('user_data', 'anything else (the default)'),
  ('system_data', 'kept by tools'),
  ('temp_data', 'may be thrown away');

insert into operation_types (name, description, artifacts) values
  ('planning', 'make a milestone plan',
   '[{"key":"planning-scope","weight":20},{"key":"planning-estimates","weight":20},{"key":"planning-risks","weight":20},{"key":"planning-kiro","weight":20},{"key":"milestone-plan","weight":20}]'),
  ('execution', 'carry a milestone out',
   '[{"key":"design-phase-results","weight":15},{"key":"spec-phase-results","weight":25},{"key":"task-phase-results","weight":20},{"key":"execute-phase-results","weight":40}]'),
  ('validation', 'check what was done', '[]'),
  ('recovery', 'bring work back', '[]'),
  ('cleanup', 'tidy up', '[]');

create table agent_coordination_config (
  key         text primary key constraint invalid_key check (key <> '' and instr(key, char(0)) = 0),
  value       text not null,
  description text not null default '',
  updated_at  text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  constraint invalid_moment check (updated_at is null or coalesce(datetime(julianday(updated_at)) = substr(updated_at, 1, 19) and length(updated_at) <= 23 and updated_at >= '0001' and substr(updated_at, 20) not glob '*[^.0-9]*', 0))
) strict, without rowid;

insert into agent_coordination_config (key, value, description) values
  ('heartbeat_interval', '30', 'seconds between the heartbeats of an idle agent'),
  ('message_retry_limit', '3', 'redeliveries of a message before it is dead'),
  ('session_timeout', '1800', 'seconds without activity after which a session counts as stale'),
  ('checkpoint_interval', '300', 'seconds between automatic checkpoints, for tools that make them; the bus makes none'),
  ('health_check_interval', '60', 'seconds between health checks, for tools that make them; `bus monitor` has --interval'),
  ('cleanup_retention_days', '7', 'days that acknowledged messages are kept'),
  ('lease_seconds', '30', 'seconds a message is leased for, unless the receiver says otherwise'),
  ('interrupted_after', '300', 'seconds without activity after which an active session counts as interrupted'),
  ('stale_after', '1800', 'seconds without heartbeat after which an agent counts as dead that gave no process, or is elsewhere'),
  ('failed_session_hours', '24', 'hours after which cleanup abandons a failed session'),
  ('max_payload_bytes', '1048576', 'largest payload or snapshot, in bytes of JSON'),
  ('priority_aging_seconds', '0', 'seconds of waiting that are worth one level of priority; 0: strict priority'),
  ('advise_milestones', '25', 'milestones from which `bus status` calls PostgreSQL worth a thought'),
  ('advise_milestones_strongly', '100', 'milestones from which `bus status` recommends PostgreSQL'),
  ('advise_agents', '5', 'concurrent agents from which `bus status` calls PostgreSQL worth a thought'),
  ('advise_agents_strongly', '20', 'concurrent agents from which `bus status` recommends PostgreSQL'),
  ('advise_writes_per_second', '200', 'messages sent and acknowledged a second from which `bus status` recommends PostgreSQL'),
  ('advise_busy_percent', '50', 'percentage of the time in which somebody writes from which `bus status` recommends PostgreSQL');

-- 100 years at most, in the unit of the key: so long a duration may be. What is counted is whole.
create trigger agent_coordination_config_numbers before update of value on agent_coordination_config
when old.value <> '' and old.value not glob '*[^0-9.]*'
  and (new.value = '' or instr(new.value, char(0)) > 0 or new.value glob '*[^0-9.]*' or new.value glob '*.*.*'
    or new.value not glob '*[0-9]*'
    or cast(new.value as real) > case when new.key glob '*_days' then 36600 when new.key glob '*_hours' then 878400
      else 3162240000 end
    or (new.key = 'lease_seconds' and cast(new.value as real) < 0.001)
    or (new.value glob '*.*' and new.key in ('message_retry_limit', 'max_payload_bytes', 'advise_milestones',
      'advise_milestones_strongly', 'advise_agents', 'advise_agents_strongly')))
begin
  select raise(abort, 'invalid_value: this setting is a number, 0 to 100 years; counts are whole, and a lease takes some time');
end;

-- Who replaces a row updates nothing, and would pass by the trigger above.
create trigger agent_coordination_config_stays before insert on agent_coordination_config
when exists (select 1 from agent_coordination_config where key = new.key)
begin
  select raise(abort, 'immutable: a setting that is there is changed by an update');
end;

-- The bus can't do without its settings. (Without types it is one that another is copied into: copying/empty.sql.)
create trigger agent_coordination_config_kept before delete on agent_coordination_config
when exists (select 1 from agent_types)
begin
  select raise(abort, 'immutable: a setting is changed, not removed');
end;
create trigger agent_coordination_config_named before update of key on agent_coordination_config
when new.key <> old.key
begin
  select raise(abort, 'immutable: a setting is changed, not removed');
end;

-- Refusals: `insert into refusals select 'code' where …` stops the operation that runs it.

create view refusals (code) as select '' where 0;
create trigger refusals_raise instead of insert on refusals
begin
  select case new.code
    when 'unknown_agent' then raise(abort, 'unknown_agent')
    when 'unknown_session' then raise(abort, 'unknown_session')
    when 'unknown_message' then raise(abort, 'unknown_message')
    when 'unknown_type' then raise(abort, 'unknown_type')
    when 'unknown_setting' then raise(abort, 'unknown_setting')
    when 'unknown_trace' then raise(abort, 'unknown_trace')
    when 'lease_lost' then raise(abort, 'lease_lost')
    when 'key_reused' then raise(abort, 'key_reused')
    when 'version_conflict' then raise(abort, 'version_conflict')
    when 'already_ended' then raise(abort, 'already_ended')
    when 'already_started' then raise(abort, 'already_started')
    when 'not_started' then raise(abort, 'not_started')
    when 'not_dead' then raise(abort, 'not_dead')
    when 'invalid_status' then raise(abort, 'invalid_status')
    when 'future_time' then raise(abort, 'future_time')
    else raise(abort, 'refused')
  end;
end;

-- JSON that the bus keeps beside payloads: `insert into agent_notes values (…)` refuses what no reader could rely on.

create view agent_notes (document) as select '' where 0;
create trigger agent_notes_check instead of insert on agent_notes when json_valid(new.document)  -- else a constraint says so
begin
  select case
    when instr(new.document, char(0))
      or (new.document glob '*\u0000*' and instr(replace(new.document, '\\', ''), '\u0000'))
      then raise(abort, 'invalid_json: text with a NUL')
    when exists (select 1 from json_tree(new.document) where type in ('integer', 'real')
        and typeof(atom) = 'real' and (type = 'integer' or atom in (9e999, -9e999)))
      then raise(abort, 'invalid_json: a number beyond 64 bits')
    when exists (select 1 from json_tree(new.document) where key is not null group by parent, key having count(*) > 1)
      then raise(abort, 'invalid_json: a key stands twice')
  end;
end;

create table coordination_sessions (
  session_id     text primary key constraint invalid_id check (length(session_id) between 1 and 128
    and session_id not glob '*[^A-Za-z0-9._:@-]*' and session_id not glob '[-.@]*' and instr(session_id, char(0)) = 0),
  milestone_id   text not null default '',
  operation_type text not null default 'execution',
  phase          text,
  coordinator_id text,
  agent_count    integer not null default 0,
  progress       real not null default 0 constraint invalid_progress check (progress between 0 and 100),
  status         text not null default 'active'
    constraint invalid_status check (status in ('active', 'paused', 'completed', 'failed', 'abandoned')),
  configuration  text not null default '{}' constraint invalid_json check (json_valid(configuration)),
  created_at     text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  last_activity  text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  completed_at   text,
  constraint invalid_moment check (created_at is null or coalesce(datetime(julianday(created_at)) = substr(created_at, 1, 19) and length(created_at) <= 23 and created_at >= '0001' and substr(created_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (last_activity is null or coalesce(datetime(julianday(last_activity)) = substr(last_activity, 1, 19) and length(last_activity) <= 23 and last_activity >= '0001' and substr(last_activity, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (completed_at is null or coalesce(datetime(julianday(completed_at)) = substr(completed_at, 1, 19) and length(completed_at) <= 23 and completed_at >= '0001' and substr(completed_at, 20) not glob '*[^.0-9]*', 0))
) strict;

create trigger coordination_sessions_type before insert on coordination_sessions
when not exists (select 1 from operation_types where name = new.operation_type)
begin
  select raise(abort, 'unknown_type: there is no such operation type');
end;
create trigger coordination_sessions_type_change before update of operation_type on coordination_sessions
when not exists (select 1 from operation_types where name = new.operation_type)
begin
  select raise(abort, 'unknown_type: there is no such operation type');
end;

create table agent_registry (
  agent_id           text primary key constraint invalid_id check (length(agent_id) between 1 and 128
    and agent_id not glob '*[^A-Za-z0-9._:@-]*' and agent_id not glob '[-.@]*' and instr(agent_id, char(0)) = 0),
  agent_type         text not null,
  milestone_id       text not null default '',
  session_id         text not null constraint invalid_id check (length(session_id) between 1 and 128
    and session_id not glob '*[^A-Za-z0-9._:@-]*' and session_id not glob '[-.@]*' and instr(session_id, char(0)) = 0),
  status             text not null default 'active' constraint invalid_status
    check (status in ('spawning', 'active', 'paused', 'completed', 'failed', 'terminated')),
  capabilities       text not null default '[]'
    constraint invalid_json check (json_valid(capabilities) and json_type(capabilities) = 'array'),
  current_task       text,
  current_phase      text,
  resource_usage     text constraint invalid_json check (resource_usage is null or json_valid(resource_usage)),
  spawn_time         text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  last_heartbeat     text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  completion_time    text,
  error_info         text constraint invalid_json check (error_info is null or json_valid(error_info)),
  host               text,
  pid                integer,
  pid_namespace      text,
  process_started_at integer,  -- clock ticks after the boot, as in /proc/PID/stat
  boot_id            text,
  command            text,      -- how to start the agent again
  constraint invalid_moment check (spawn_time is null or coalesce(datetime(julianday(spawn_time)) = substr(spawn_time, 1, 19) and length(spawn_time) <= 23 and spawn_time >= '0001' and substr(spawn_time, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (last_heartbeat is null or coalesce(datetime(julianday(last_heartbeat)) = substr(last_heartbeat, 1, 19) and length(last_heartbeat) <= 23 and last_heartbeat >= '0001' and substr(last_heartbeat, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (completion_time is null or coalesce(datetime(julianday(completion_time)) = substr(completion_time, 1, 19) and length(completion_time) <= 23 and completion_time >= '0001' and substr(completion_time, 20) not glob '*[^.0-9]*', 0))
) strict;
create index agent_registry_session on agent_registry (session_id);

create trigger agent_registry_type before insert on agent_registry
when not exists (select 1 from agent_types where name = new.agent_type)
begin
  select raise(abort, 'unknown_type: there is no such agent type');
end;
create trigger agent_registry_type_change before update of agent_type on agent_registry
when not exists (select 1 from agent_types where name = new.agent_type)
begin
  select raise(abort, 'unknown_type: there is no such agent type');
end;

create trigger coordination_sessions_notes before insert on coordination_sessions when new.configuration <> '{}'
begin
  insert into agent_notes values (new.configuration);
end;
create trigger coordination_sessions_notes_change before update of configuration on coordination_sessions
begin
  insert into agent_notes values (new.configuration);
end;
create trigger agent_registry_notes before insert on agent_registry
when new.capabilities <> '[]' or new.resource_usage is not null or new.error_info is not null
begin
  insert into agent_notes values (new.capabilities), (new.resource_usage), (new.error_info);
end;
create trigger agent_registry_notes_change before update of capabilities, resource_usage, error_info on agent_registry
begin
  insert into agent_notes values (new.capabilities), (new.resource_usage), (new.error_info);
end;

-- A session counts its agents, and is as active as the most active of them. One that was given up in a silence
-- (sessions/fail.sql) lives again when one of them is heard of. (That is said twice: a trigger of its own would cost each
-- message a temporary table.)
create trigger agent_registry_joins after insert on agent_registry
begin
  update coordination_sessions set last_activity = max(last_activity, new.last_heartbeat),
    status = iif(status = 'failed' and completed_at < new.last_heartbeat, 'active', status),
    completed_at = iif(status = 'failed' and completed_at < new.last_heartbeat, null, completed_at),
    agent_count = (select count(*) from agent_registry where session_id = new.session_id)
  where session_id = new.session_id;
end;
create trigger coordination_sessions_counts after insert on coordination_sessions  -- by hand, agents may come first
when new.agent_count = 0 and exists (select 1 from agent_registry where session_id = new.session_id)
begin
  update coordination_sessions set
    agent_count = (select count(*) from agent_registry where session_id = new.session_id)
  where session_id = new.session_id;
end;
create trigger agent_registry_leaves after delete on agent_registry
begin
  update coordination_sessions set agent_count = agent_count - 1 where session_id = old.session_id;
end;
create trigger agent_registry_moves after update of session_id on agent_registry
when old.session_id <> new.session_id
begin
  update coordination_sessions set agent_count = agent_count - 1 where session_id = old.session_id;
  update coordination_sessions set agent_count = agent_count + 1 where session_id = new.session_id;
end;
create trigger agent_registry_beats after update of last_heartbeat on agent_registry
begin
  update coordination_sessions set last_activity = max(last_activity, new.last_heartbeat),
    status = iif(status = 'failed' and completed_at < new.last_heartbeat, 'active', status),
    completed_at = iif(status = 'failed' and completed_at < new.last_heartbeat, null, completed_at)
  where session_id = new.session_id
    and (last_activity < new.last_heartbeat or (status = 'failed' and completed_at < new.last_heartbeat));
end;

-- Whoever was taken for dead, by others, and is heard of again lives, and their note goes. (What it says by itself, that
-- it has failed for instance, agents/retire.sql and agents/heartbeat.sql write after that.)
create trigger agent_registry_revives after update of last_heartbeat on agent_registry
when new.status = 'failed' and old.status = 'failed' and new.last_heartbeat > old.last_heartbeat
  and json_extract(new.error_info, '$.by') is not null
  and coalesce(json_extract(new.error_info, '$.silent_since'), json_extract(new.error_info, '$.recovery')) is not null
begin
  update agent_registry set status = 'active', completion_time = null,
    error_info = nullif(json_remove(new.error_info,
      '$.silent_since', '$.recovery', '$.by', '$.at', '$.was', '$.given_back', '$.buried'), '{}')
  where agent_id = new.agent_id;
end;

create table agent_messages (
  id              integer primary key  -- grows, never reused: the newest row is never deleted
    constraint invalid_value check (id between 1 and 1000000000000000),
  session_id      text not null constraint invalid_id check (length(session_id) between 1 and 128
    and session_id not glob '*[^A-Za-z0-9._:@-]*' and session_id not glob '[-.@]*' and instr(session_id, char(0)) = 0),
  from_agent      text not null constraint invalid_id check (length(from_agent) between 1 and 128
    and from_agent not glob '*[^A-Za-z0-9._:@-]*' and from_agent not glob '[-.@]*' and instr(from_agent, char(0)) = 0),
  to_agent        text not null constraint invalid_address check (length(to_agent) between 1 and 128 + (to_agent glob '@*')
    and to_agent not glob '?*[^A-Za-z0-9._:@-]*' and to_agent glob '[A-Za-z0-9_:@]*' and to_agent not glob '@[-.@]*'
    and to_agent <> '@' and instr(to_agent, char(0)) = 0),
  message_type    text not null,
  priority        integer not null default 5 constraint invalid_priority check (priority between 1 and 10),
  status          text not null default 'ready' constraint invalid_status
    -- Not `in (…)`: for more than two words SQLite makes a temporary table, each time.
    check (case status when 'ready' then 1 when 'leased' then 1 when 'acknowledged' then 1 when 'scheduled' then 1
      when 'dead' then 1 else 0 end),
  created_at      text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  delivered_at    text,
  acknowledged_at text,
  retry_count     integer not null default 0  -- times it came back since it was sent or redriven
    constraint invalid_value check (retry_count >= 0),
  due_at          text,
  expires_at      text,
  leased_by       text,  -- kept when a lease runs out: until somebody takes it, its holder may still acknowledge
  delivery        integer not null default 0  -- the fencing token: only ever grows
    constraint invalid_value check (delivery between 0 and 1000000000000),
  idempotency_key text constraint invalid_idempotency_key check (idempotency_key <> ''),
  correlation_id  text,
  reply_to        integer,
  dead_reason     text constraint invalid_dead_reason
    check (dead_reason is null or case dead_reason when 'retries_exhausted' then 1 when 'expired' then 1
      when 'rejected' then 1 when 'cancelled' then 1 when 'damaged' then 1 else 0 end),
  reason          text,
  digest          text,
  traceparent     text  -- W3C trace context, as the sender gave it: 00-<trace id>-<span id>-<flags>
    constraint invalid_traceparent check (
    length(traceparent) = 55 and traceparent not glob '*[^0-9a-f-]*' and length(replace(traceparent, '-', '')) = 52
      and traceparent glob '00-*' and substr(traceparent, 36, 1) = '-' and substr(traceparent, 53, 1) = '-'
      and substr(traceparent, 4, 32) glob '*[^0]*' and substr(traceparent, 37, 16) glob '*[^0]*'),
  payload         text not null,
  mailbox         text generated always as (iif(to_agent glob '@*', to_agent || '/' || session_id, to_agent)) virtual,
  constraint invalid_status check (status not in ('scheduled', 'leased') or due_at is not null),
  constraint invalid_status check (status <> 'leased' or (leased_by is not null and delivery > 0)),
  constraint invalid_status check ((status = 'acknowledged') = (acknowledged_at is not null)),
  constraint invalid_status check ((status = 'dead') = (dead_reason is not null)),
  constraint invalid_moment check (created_at is null or coalesce(datetime(julianday(created_at)) = substr(created_at, 1, 19) and length(created_at) <= 23 and created_at >= '0001' and substr(created_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (delivered_at is null or coalesce(datetime(julianday(delivered_at)) = substr(delivered_at, 1, 19) and length(delivered_at) <= 23 and delivered_at >= '0001' and substr(delivered_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (acknowledged_at is null or coalesce(datetime(julianday(acknowledged_at)) = substr(acknowledged_at, 1, 19) and length(acknowledged_at) <= 23 and acknowledged_at >= '0001' and substr(acknowledged_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (due_at is null or coalesce(datetime(julianday(due_at)) = substr(due_at, 1, 19) and length(due_at) <= 23 and due_at >= '0001' and substr(due_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (expires_at is null or coalesce(datetime(julianday(expires_at)) = substr(expires_at, 1, 19) and length(expires_at) <= 23 and expires_at >= '0001' and substr(expires_at, 20) not glob '*[^.0-9]*', 0))
) strict;

create index agent_messages_ready on agent_messages (mailbox, priority desc) where status = 'ready';
create index agent_messages_timers on agent_messages (mailbox, due_at, leased_by, status) where due_at is not null;
create index agent_messages_dead on agent_messages (session_id) where status = 'dead';
create unique index agent_messages_key on agent_messages (from_agent, to_agent, idempotency_key)
  where idempotency_key is not null;

-- What a new message must be, whoever writes it. The payload of a type is checked by 0002_payloads.sql. (It is judged
-- here, not by way of `agent_notes`, which would make a message a tenth dearer.)
create trigger agent_messages_check before insert on agent_messages
begin
  select case
    when new.session_id is null then raise(abort, 'unknown_agent')
    when not exists (select 1 from message_types where name = new.message_type)
      then raise(abort, 'unknown_type: there is no such message type')
    when new.to_agent glob '@*' and not exists (select 1 from agent_types where name = substr(new.to_agent, 2))
      then raise(abort, 'unknown_type: there is no such agent type')
    when length(cast(new.payload as blob))
        > (select cast(value as integer) from agent_coordination_config where key = 'max_payload_bytes')
      then raise(abort, 'payload_too_large')
    when not json_valid(new.payload) then raise(abort, 'invalid_json')
    when json_type(new.payload) <> 'object' then raise(abort, 'invalid_payload: a payload is a JSON object')
    when instr(new.payload, char(0))
      or (new.payload glob '*\u0000*' and instr(replace(new.payload, '\\', ''), '\u0000'))
      then raise(abort, 'invalid_json: text with a NUL')
    when exists (select 1 from json_tree(new.payload) where type in ('integer', 'real')
        and typeof(atom) = 'real' and (type = 'integer' or atom in (9e999, -9e999)))
      then raise(abort, 'invalid_json: a number beyond 64 bits')
    when exists (select 1 from json_tree(new.payload) where key is not null group by parent, key having count(*) > 1)
      then raise(abort, 'invalid_json: a key stands twice')
  end;
end;

-- By hand, an expiry may be given without its timer.
create trigger agent_messages_expiry after insert on agent_messages
when new.status in ('scheduled', 'ready') and new.expires_at is not null
  and (new.due_at is null or new.expires_at < new.due_at)
begin
  update agent_messages set due_at = new.expires_at where id = new.id;
end;

create trigger agent_messages_expiry_changes after update of expires_at on agent_messages
when new.status in ('scheduled', 'ready') and new.expires_at is not null
  and (new.due_at is null or new.expires_at < new.due_at)
begin
  update agent_messages set due_at = new.expires_at where id = new.id;
end;

create trigger agent_messages_activity after insert on agent_messages
begin
  update coordination_sessions set last_activity = new.created_at
  where session_id = new.session_id and last_activity < substr(new.created_at, 1, 18);  -- once in ten seconds
end;

-- The edges of the life cycle, and nothing else.
create trigger agent_messages_transition before update of status on agent_messages
when new.status <> old.status and not case old.status
  when 'scheduled' then new.status in ('ready', 'dead')
  when 'ready' then new.status in ('leased', 'dead')
  when 'leased' then new.status <> 'leased'
  when 'dead' then new.status = 'ready'
  else 0 end
begin
  select raise(abort, 'illegal_transition');
end;

-- (SQLite knows the id by three other names, too.)
create trigger agent_messages_envelope
before update of id, rowid, oid, _rowid_, session_id, from_agent, to_agent, message_type, traceparent, payload, created_at
  on agent_messages
begin
  select raise(abort, 'immutable: what was sent does not change');
end;

create trigger agent_messages_key before update of idempotency_key on agent_messages
when new.idempotency_key is not old.idempotency_key
begin
  select raise(abort, 'immutable: what was sent does not change');
end;

create trigger agent_messages_fencing before update of delivery on agent_messages
when new.delivery < old.delivery
begin
  select raise(abort, 'immutable: the delivery number only grows');
end;

-- By hand: `or replace` would take away what has that id; and after one that is far ahead none would be left.
create trigger agent_messages_new before insert on agent_messages
when new.id > 0 and (exists (select 1 from agent_messages where id = new.id)
  or new.id > 1000000000000 + (select coalesce(max(id), 0) from agent_messages))
begin
  select raise(abort, 'immutable: an id is given once, and the next is larger');
end;

create trigger agent_messages_grows after insert on agent_messages
when new.id < (select max(id) from agent_messages)
begin
  select raise(abort, 'immutable: an id is given once, and the next is larger');
end;

create trigger agent_messages_newest before delete on agent_messages
when old.id = (select max(id) from agent_messages)
begin
  select raise(abort, 'immutable: the newest message stays, so that its id is never used again');
end;

create table agent_state (
  agent_id    text not null constraint invalid_id check (length(agent_id) between 1 and 128
    and agent_id not glob '*[^A-Za-z0-9._:@-]*' and agent_id not glob '[-.@]*' and instr(agent_id, char(0)) = 0),
  state_key   text not null constraint invalid_key check (length(state_key) between 1 and 128
    and state_key not glob '*[^A-Za-z0-9._:@/-]*' and state_key not glob '[-.@]*' and instr(state_key, char(0)) = 0),
  state_type  text not null default 'user_data',
  version     integer not null default 1 check (version > 0),
  created_at  text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at  text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  expires_at  text,
  state_value text not null constraint invalid_value check (instr(state_value, char(0)) = 0),
  primary key (agent_id, state_key),
  constraint invalid_moment check (created_at is null or coalesce(datetime(julianday(created_at)) = substr(created_at, 1, 19) and length(created_at) <= 23 and created_at >= '0001' and substr(created_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (updated_at is null or coalesce(datetime(julianday(updated_at)) = substr(updated_at, 1, 19) and length(updated_at) <= 23 and updated_at >= '0001' and substr(updated_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (expires_at is null or coalesce(datetime(julianday(expires_at)) = substr(expires_at, 1, 19) and length(expires_at) <= 23 and expires_at >= '0001' and substr(expires_at, 20) not glob '*[^.0-9]*', 0))
) strict;
create index agent_state_expiry on agent_state (expires_at) where expires_at is not null;

create trigger agent_state_type before insert on agent_state
when not exists (select 1 from state_types where name = new.state_type)
begin
  select raise(abort, 'unknown_type: there is no such state type');
end;
create trigger agent_state_type_change before update of state_type on agent_state
when new.state_type <> old.state_type and not exists (select 1 from state_types where name = new.state_type)
begin
  select raise(abort, 'unknown_type: there is no such state type');
end;

-- By hand, a value may be changed without its version, which grows nevertheless, or a version be taken back
-- (state/delete.sql changes none).
create trigger agent_state_version after update of state_value, version on agent_state
when new.version < old.version or (new.version = old.version and new.state_value <> old.state_value
  and new.expires_at is not '0001-01-01 00:00:00.000')
begin
  update agent_state set version = old.version + 1 where agent_id = new.agent_id and state_key = new.state_key;
end;

create table agent_checkpoints (
  checkpoint_id   text primary key default (lower(hex(randomblob(8)))),
  agent_id        text not null constraint invalid_id check (length(agent_id) between 1 and 128
    and agent_id not glob '*[^A-Za-z0-9._:@-]*' and agent_id not glob '[-.@]*' and instr(agent_id, char(0)) = 0),
  session_id      text not null constraint invalid_id check (length(session_id) between 1 and 128
    and session_id not glob '*[^A-Za-z0-9._:@-]*' and session_id not glob '[-.@]*' and instr(session_id, char(0)) = 0),
  checkpoint_type text not null default 'manual' constraint unknown_type
    check (case checkpoint_type when 'automatic' then 1 when 'manual' then 1 when 'phase_completion' then 1
      when 'error_recovery' then 1 else 0 end),
  parent_id       text,
  created_at      text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  retention_until text,
  file_references text not null default '[]'
    constraint invalid_json check (json_valid(file_references) and json_type(file_references) = 'array'),
  state_snapshot  text not null default '{}',
  constraint invalid_value check (rowid between 1 and 1000000000000000),
  constraint invalid_moment check (created_at is null or coalesce(datetime(julianday(created_at)) = substr(created_at, 1, 19) and length(created_at) <= 23 and created_at >= '0001' and substr(created_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (retention_until is null or coalesce(datetime(julianday(retention_until)) = substr(retention_until, 1, 19) and length(retention_until) <= 23 and retention_until >= '0001' and substr(retention_until, 20) not glob '*[^.0-9]*', 0))
) strict;
create index agent_checkpoints_agent on agent_checkpoints (agent_id);  -- and the rowid: in the order they were made

create trigger agent_checkpoints_check before insert on agent_checkpoints
begin
  select case
    when new.session_id is null then raise(abort, 'unknown_agent')
    when length(cast(new.state_snapshot as blob))
        > (select cast(value as integer) from agent_coordination_config where key = 'max_payload_bytes')
      then raise(abort, 'payload_too_large')
    when not json_valid(new.state_snapshot) then raise(abort, 'invalid_json')
    when exists (select 1 from json_each(iif(json_valid(new.file_references), new.file_references, '[]')) where
        iif(type = 'object', json_type(value, '$.path') || json_type(value, '$.sha256') || json_type(value, '$.size'), '')
          is not 'texttextinteger')
      then raise(abort, 'invalid_json: a file reference is {"path", "sha256", "size"}')
  end;
  insert into agent_notes values (new.state_snapshot), (new.file_references);
end;
create trigger agent_checkpoints_new before insert on agent_checkpoints
when exists (select 1 from agent_checkpoints where checkpoint_id = new.checkpoint_id)
begin
  select raise(abort, 'immutable: a checkpoint does not change');
end;
create trigger agent_checkpoints_frozen before update on agent_checkpoints
when new.state_snapshot is not old.state_snapshot or new.file_references is not old.file_references
begin
  select raise(abort, 'immutable: a checkpoint does not change');
end;

create table agent_health_log (
  id            integer primary key autoincrement
    constraint invalid_value check (id between 1 and 1000000000000000),
  agent_id      text not null,
  health_status text not null constraint invalid_status
    check (health_status in ('healthy', 'degraded', 'failing', 'unresponsive')),
  cpu_usage     real constraint invalid_value check (abs(cpu_usage) < 9e999),
  memory_usage  real constraint invalid_value check (abs(memory_usage) < 9e999),
  response_time real constraint invalid_value check (abs(response_time) < 9e999),
  error_count   integer not null default 0,
  warning_count integer not null default 0,
  timestamp     text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  details       text constraint invalid_json check (details is null or json_valid(details)),
  constraint invalid_moment check (timestamp is null or coalesce(datetime(julianday(timestamp)) = substr(timestamp, 1, 19) and length(timestamp) <= 23 and timestamp >= '0001' and substr(timestamp, 20) not glob '*[^.0-9]*', 0))
) strict;
create index agent_health_log_time on agent_health_log (timestamp);

create trigger agent_health_log_notes before insert on agent_health_log when new.details is not null
begin
  insert into agent_notes values (new.details);
end;
create trigger agent_health_log_notes_change before update of details on agent_health_log
begin
  insert into agent_notes values (new.details);
end;

create table milestones (
  id         text primary key constraint invalid_id check (length(id) between 1 and 128
    and id not glob '*[^A-Za-z0-9._:@-]*' and id not glob '[-.@]*' and instr(id, char(0)) = 0),
  title      text not null default '',
  status     text not null default 'planned',
  priority   integer not null default 5 constraint invalid_priority check (priority between 1 and 10),
  data       text not null default '{}' constraint invalid_json check (json_valid(data) and json_type(data) = 'object'),
  created_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  updated_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  constraint invalid_moment check (created_at is null or coalesce(datetime(julianday(created_at)) = substr(created_at, 1, 19) and length(created_at) <= 23 and created_at >= '0001' and substr(created_at, 20) not glob '*[^.0-9]*', 0)),
  constraint invalid_moment check (updated_at is null or coalesce(datetime(julianday(updated_at)) = substr(updated_at, 1, 19) and length(updated_at) <= 23 and updated_at >= '0001' and substr(updated_at, 20) not glob '*[^.0-9]*', 0))
) strict;

create trigger agent_notes_milestones before insert on milestones
begin
  insert into agent_notes values (new.data);
end;
create trigger agent_notes_milestones_change before update of data on milestones
begin
  insert into agent_notes values (new.data);
end;

-- Artifacts, each with a weight: what recovery adds up.

create view agent_artifacts (artifacts) as select '' where 0;
create trigger agent_artifacts_check instead of insert on agent_artifacts
begin
  select raise(abort, 'invalid_value: artifacts are [{"key": a state key, "weight": a number above 0}, …]')
  from json_each(iif(json_valid(new.artifacts), new.artifacts, '[]'))
  where case when type <> 'object' or json_type(value, '$.key') is not 'text' then 1
    when json_type(value, '$.weight') in ('integer', 'real') then json_extract(value, '$.weight') not between 1e-9 and 1e6
    else 1 end;
  insert into agent_notes values (new.artifacts);
end;
create trigger agent_artifacts_added before insert on operation_types
begin
  insert into agent_artifacts values (new.artifacts);
end;
create trigger agent_artifacts_changed before update of artifacts on operation_types
begin
  insert into agent_artifacts values (new.artifacts);
end;

-- A type keeps its name, and stays while something is of it.

create trigger agent_registry_type_used before delete on agent_types
when exists (select 1 from agent_registry where agent_type = old.name)
  or exists (select 1 from agent_messages where to_agent = '@' || old.name)
begin
  select raise(abort, 'immutable: a type keeps its name, and stays while something is of it');
end;
create trigger agent_registry_type_named before update of name on agent_types
when new.name <> old.name
begin
  select raise(abort, 'immutable: a type keeps its name, and stays while something is of it');
end;
create trigger agent_messages_type_used before delete on message_types
when exists (select 1 from agent_messages where message_type = old.name)
begin
  select raise(abort, 'immutable: a type keeps its name, and stays while something is of it');
end;
create trigger agent_messages_type_named before update of name on message_types
when new.name <> old.name
begin
  select raise(abort, 'immutable: a type keeps its name, and stays while something is of it');
end;
create trigger agent_state_type_used before delete on state_types
when exists (select 1 from agent_state where state_type = old.name)
begin
  select raise(abort, 'immutable: a type keeps its name, and stays while something is of it');
end;
create trigger agent_state_type_named before update of name on state_types
when new.name <> old.name
begin
  select raise(abort, 'immutable: a type keeps its name, and stays while something is of it');
end;
create trigger coordination_sessions_type_used before delete on operation_types
when exists (select 1 from coordination_sessions where operation_type = old.name)
begin
  select raise(abort, 'immutable: a type keeps its name, and stays while something is of it');
end;
create trigger coordination_sessions_type_named before update of name on operation_types
when new.name <> old.name
begin
  select raise(abort, 'immutable: a type keeps its name, and stays while something is of it');
end;

-- Records: what the doors print, one JSON object a row, times as RFC 3339, payloads as JSON.

create view message_records as select *, json_object(
  'id', id, 'session_id', session_id, 'from_agent', from_agent, 'to_agent', to_agent, 'message_type', message_type,
  'payload', iif(json_valid(payload), json(payload), null), 'priority', priority, 'status', status, 'created_at', replace(created_at, ' ', 'T') || 'Z',
  'delivered_at', replace(delivered_at, ' ', 'T') || 'Z', 'acknowledged_at', replace(acknowledged_at, ' ', 'T') || 'Z',
  'retry_count', retry_count, 'due_at', replace(due_at, ' ', 'T') || 'Z', 'expires_at', replace(expires_at, ' ', 'T') || 'Z',
  'leased_by', leased_by, 'receipt', iif(delivery > 0, id || '.' || delivery, null), 'idempotency_key', idempotency_key,
  'correlation_id', correlation_id, 'reply_to', reply_to, 'dead_reason', dead_reason, 'reason', reason,
  'traceparent', traceparent, 'digest', digest) as record
from agent_messages;

create view agent_records as select *, json_object(
  'agent_id', agent_id, 'agent_type', agent_type, 'milestone_id', milestone_id, 'session_id', session_id, 'status', status,
  'capabilities', json(capabilities), 'current_task', current_task, 'current_phase', current_phase,
  'resource_usage', json(resource_usage), 'spawn_time', replace(spawn_time, ' ', 'T') || 'Z',
  'last_heartbeat', replace(last_heartbeat, ' ', 'T') || 'Z', 'completion_time', replace(completion_time, ' ', 'T') || 'Z',
  'error_info', json(error_info), 'host', host, 'pid', pid, 'pid_namespace', pid_namespace,
  'process_started_at', process_started_at, 'boot_id', boot_id, 'command', command) as record
from agent_registry;

create view session_records as select *, json_object(
  'session_id', session_id, 'milestone_id', milestone_id, 'operation_type', operation_type, 'phase', phase,
  'coordinator_id', coordinator_id, 'agent_count', agent_count, 'progress', progress, 'status', status,
  'configuration', json(configuration), 'created_at', replace(created_at, ' ', 'T') || 'Z',
  'last_activity', replace(last_activity, ' ', 'T') || 'Z', 'completed_at', replace(completed_at, ' ', 'T') || 'Z') as record
from coordination_sessions;

create view state_records as select *, json_object(
  'agent_id', agent_id, 'state_key', state_key, 'state_value', state_value, 'state_type', state_type, 'version', version,
  'created_at', replace(created_at, ' ', 'T') || 'Z', 'updated_at', replace(updated_at, ' ', 'T') || 'Z',
  'expires_at', replace(expires_at, ' ', 'T') || 'Z') as record
from agent_state;

create view checkpoint_records as select *, rowid as sequence, json_object(
  'checkpoint_id', checkpoint_id, 'agent_id', agent_id, 'session_id', session_id, 'checkpoint_type', checkpoint_type,
  'state_snapshot', json(state_snapshot), 'file_references', json(file_references),
  'created_at', replace(created_at, ' ', 'T') || 'Z', 'retention_until', replace(retention_until, ' ', 'T') || 'Z',
  'parent_id', parent_id) as record
from agent_checkpoints;

create view milestone_records as select *, json_object(
  'id', id, 'title', title, 'status', status, 'priority', priority, 'data', json(data),
  'created_at', replace(created_at, ' ', 'T') || 'Z', 'updated_at', replace(updated_at, ' ', 'T') || 'Z') as record
from milestones;
