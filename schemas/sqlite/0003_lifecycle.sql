-- Every agent's life, on record: who ran, for how long, how it ended, what it waited for.
--
-- A record is written once and its `status` walks
--     spawned -> running -> completed, failed, killed        and from spawned to failed (it could not be started), killed.
-- Durations are the database's: whatever a writer puts into `duration_ms` and `idle_time_ms`, triggers work them out
-- from the three moments, to the millisecond. A process that nobody waited for is found gone later: killed, `unseen`,
-- ended when it was last seen; whoever did wait for it may still say how it really ended.

insert into agent_coordination_config (key, value, description) values
  ('lifecycle_retention_days', '90', 'days that the records of ended agents are kept'),
  ('health_retention_days', '30', 'days that the health log is kept'),
  ('unseen_after', '86400', 'seconds after which a traced agent that nobody here can see counts as killed');
insert into agent_coordination_config (key, value, description)
values ('bus_id', lower(hex(randomblob(16))), 'names this bus in exported traces');

create table agent_lifecycle (
  agent_id           integer primary key autoincrement
    constraint invalid_value check (agent_id between 1 and 1000000000000000),
  pid                integer not null constraint invalid_value check (pid between 1 and 4294967296),
  agent_type         text not null constraint invalid_value check (length(agent_type) between 1 and 128 and instr(agent_type, char(0)) = 0),
  task_id            text not null constraint invalid_value check (length(task_id) between 1 and 1024 and instr(task_id, char(0)) = 0),
  task_type          text,
  priority_number    text  -- as it is written: 7, 1.5, 042
    constraint invalid_value check (length(priority_number) between 1 and 64 and instr(priority_number, char(0)) = 0),
  spawned_at         text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  started_at         text,
  completed_at       text,
  status             text not null default 'spawned' constraint invalid_status
    check (status in ('spawned', 'running', 'completed', 'failed', 'killed')),
  exit_code          integer,
  duration_ms        integer,  -- from spawn to completion; worked out by a trigger
  idle_time_ms       integer,  -- from spawn to start; worked out by a trigger
  command            text not null,
  worktree_path      text,
  error_message      text,
  metadata           text constraint invalid_json check (metadata is null or json_valid(metadata)),
  registry_id        text,     -- its id in agent_registry, when it has one
  session_id         text,
  host               text,     -- what tells its process from all others, as in agent_registry
  pid_namespace      text,
  process_started_at integer,
  boot_id            text,
  last_seen_at       text,     -- when somebody last found it alive
  unseen             integer not null default 0  -- 1: it was found gone; how it ended nobody has said
    constraint invalid_value check (unseen in (0, 1)),
  origin             text not null default 'recorded'  -- imported: its spawn, and sometimes its end, are not known
    constraint invalid_value check (origin in ('recorded', 'imported')),
  output_tail        text,     -- the last of what it printed
  traceparent        text      -- what it was started by
    constraint invalid_traceparent check (
    length(traceparent) = 55 and traceparent not glob '*[^0-9a-f-]*' and length(replace(traceparent, '-', '')) = 52
      and traceparent glob '00-*' and substr(traceparent, 36, 1) = '-' and substr(traceparent, 53, 1) = '-'
      and substr(traceparent, 4, 32) glob '*[^0]*' and substr(traceparent, 37, 16) glob '*[^0]*'),
  constraint invalid_status check (status <> 'spawned' or (started_at is null and completed_at is null)),
  constraint invalid_status check (status <> 'running' or (started_at is not null and completed_at is null)),
  constraint invalid_status check (status <> 'completed' or (started_at is not null and (completed_at is not null or origin = 'imported'))),
  constraint invalid_status check (status not in ('failed', 'killed') or completed_at is not null or origin = 'imported'),
  constraint invalid_status check (not unseen or status = 'killed'),
  constraint invalid_duration check (started_at >= spawned_at),
  constraint invalid_duration check (completed_at >= coalesce(started_at, spawned_at)),
  constraint invalid_moment check (coalesce(datetime(julianday(spawned_at)) = substr(spawned_at, 1, 19) and length(spawned_at) <= 23 and spawned_at >= '0001' and substr(spawned_at, 20) not glob '*[^.0-9]*', spawned_at is null)),
  constraint invalid_moment check (coalesce(datetime(julianday(started_at)) = substr(started_at, 1, 19) and length(started_at) <= 23 and started_at >= '0001' and substr(started_at, 20) not glob '*[^.0-9]*', started_at is null)),
  constraint invalid_moment check (coalesce(datetime(julianday(completed_at)) = substr(completed_at, 1, 19) and length(completed_at) <= 23 and completed_at >= '0001' and substr(completed_at, 20) not glob '*[^.0-9]*', completed_at is null)),
  constraint invalid_moment check (coalesce(datetime(julianday(last_seen_at)) = substr(last_seen_at, 1, 19) and length(last_seen_at) <= 23 and last_seen_at >= '0001' and substr(last_seen_at, 20) not glob '*[^.0-9]*', last_seen_at is null))
) strict;

-- The names are those that existing tooling knows; the columns behind the first save the reports a look into the table.
create index idx_agent_type_status on agent_lifecycle (agent_type, status, duration_ms, idle_time_ms);
create index idx_priority_number on agent_lifecycle (priority_number, agent_type, spawned_at, completed_at, duration_ms);
create index idx_spawned_at on agent_lifecycle (spawned_at);
create index idx_duration on agent_lifecycle (duration_ms);
create index idx_task_id on agent_lifecycle (task_id);
create index agent_lifecycle_measures on agent_lifecycle (agent_type, duration_ms, status, spawned_at, completed_at, idle_time_ms);
create index agent_lifecycle_ended on agent_lifecycle (completed_at, status) where completed_at is not null;
create index agent_lifecycle_open on agent_lifecycle (registry_id) where status in ('spawned', 'running');
create index agent_lifecycle_registry on agent_lifecycle (registry_id, spawned_at) where registry_id is not null;
create unique index agent_lifecycle_imported on agent_lifecycle (pid, started_at) where origin = 'imported';

create trigger agent_lifecycle_measured after insert on agent_lifecycle
when new.duration_ms is not cast(round((julianday(new.completed_at) - julianday(new.spawned_at)) * 86400000) as integer)
  or new.idle_time_ms is not iif(new.origin = 'imported', null,
    cast(round((julianday(new.started_at) - julianday(new.spawned_at)) * 86400000) as integer))
begin
  update agent_lifecycle set
    duration_ms = cast(round((julianday(completed_at) - julianday(spawned_at)) * 86400000) as integer),
    idle_time_ms = iif(origin = 'imported', null,
    cast(round((julianday(started_at) - julianday(spawned_at)) * 86400000) as integer))
  where agent_id = new.agent_id;
end;
create trigger agent_lifecycle_measured_again after update of spawned_at, started_at, completed_at, duration_ms, idle_time_ms on agent_lifecycle
when new.duration_ms is not cast(round((julianday(new.completed_at) - julianday(new.spawned_at)) * 86400000) as integer)
  or new.idle_time_ms is not iif(new.origin = 'imported', null,
    cast(round((julianday(new.started_at) - julianday(new.spawned_at)) * 86400000) as integer))
begin
  update agent_lifecycle set
    duration_ms = cast(round((julianday(completed_at) - julianday(spawned_at)) * 86400000) as integer),
    idle_time_ms = iif(origin = 'imported', null,
    cast(round((julianday(started_at) - julianday(spawned_at)) * 86400000) as integer))
  where agent_id = new.agent_id;
end;

create trigger agent_lifecycle_notes before insert on agent_lifecycle when new.metadata is not null
begin
  insert into agent_notes values (new.metadata);
end;
create trigger agent_lifecycle_notes_change before update of metadata on agent_lifecycle
begin
  insert into agent_notes values (new.metadata);
end;

create trigger agent_lifecycle_transition before update of status on agent_lifecycle
when new.status <> old.status and not case old.status
  when 'spawned' then new.status in ('running', 'failed', 'killed')
  when 'running' then new.status in ('completed', 'failed', 'killed')
  when 'killed' then old.unseen and not new.unseen
  else 0 end
begin
  select raise(abort, 'illegal_transition: an agent is spawned, then running, then completed, failed or killed');
end;
create trigger agent_lifecycle_final before update of completed_at, exit_code on agent_lifecycle
when old.status in ('completed', 'failed', 'killed') and not old.unseen
  and (new.completed_at is not old.completed_at or new.exit_code is not old.exit_code)
begin
  select raise(abort, 'already_ended');
end;
-- (SQLite knows the id by three other names, too.)
create trigger agent_lifecycle_new before insert on agent_lifecycle
when new.agent_id > 0 and (exists (select 1 from agent_lifecycle where agent_id = new.agent_id)
  or new.agent_id > 1000000000000 + (select coalesce(max(agent_id), 0) from agent_lifecycle))
begin
  select raise(abort, 'immutable: how an agent came to be does not change');
end;
create trigger agent_lifecycle_origin
before update of agent_id, rowid, oid, _rowid_, agent_type, task_id, spawned_at, origin on agent_lifecycle
when new.agent_id <> old.agent_id or new.agent_type <> old.agent_type or new.task_id <> old.task_id
  or new.spawned_at <> old.spawned_at or new.origin <> old.origin
begin
  select raise(abort, 'immutable: how an agent came to be does not change');
end;

-- The four questions that are always asked.

create view agent_velocity as
select agent_type, count(*) as total_agents, sum(status = 'completed') as completed, sum(status = 'failed') as failed,
  avg(duration_ms) as avg_duration_ms, avg(idle_time_ms) as avg_idle_ms,
  max(duration_ms) as max_duration_ms, min(duration_ms) as min_duration_ms
from agent_lifecycle group by agent_type;

create view agent_bottlenecks as
select agent_id, agent_type, task_id, priority_number, duration_ms, idle_time_ms, spawned_at, completed_at,
  case when idle_time_ms > duration_ms * 0.5 then 'High Idle Time'
    when duration_ms > 1800000 then 'Long Duration'
    else 'Normal' end as bottleneck_type
from agent_lifecycle where status = 'completed' and duration_ms is not null
order by duration_ms desc limit 100;

create view priority_timeline as
select priority_number, agent_type, min(spawned_at) as first_spawn, max(completed_at) as last_completion,
  count(*) as agent_count, sum(duration_ms) as total_time_ms, avg(duration_ms) as avg_time_ms
from agent_lifecycle where priority_number is not null group by priority_number, agent_type;

create view active_agents as
select agent_id, pid, agent_type, task_id, priority_number, status, spawned_at,
  cast(round((julianday('now') - julianday(spawned_at)) * 86400000) as integer) as elapsed_ms
from agent_lifecycle where status in ('spawned', 'running');

create view lifecycle_records as select *, json_object(
  'agent_id', agent_id, 'pid', pid, 'agent_type', agent_type, 'task_id', task_id, 'task_type', task_type,
  'priority_number', priority_number, 'spawned_at', replace(spawned_at, ' ', 'T') || 'Z',
  'started_at', replace(started_at, ' ', 'T') || 'Z', 'completed_at', replace(completed_at, ' ', 'T') || 'Z',
  'status', status, 'exit_code', exit_code, 'duration_ms', duration_ms, 'idle_time_ms', idle_time_ms,
  'command', command, 'worktree_path', worktree_path, 'error_message', error_message, 'metadata', json(metadata),
  'registry_id', registry_id, 'session_id', session_id, 'host', host,
  'last_seen_at', replace(last_seen_at, ' ', 'T') || 'Z', 'unseen', json(iif(unseen, 'true', 'false')),
  'origin', origin, 'output_tail', output_tail, 'traceparent', traceparent) as record
from agent_lifecycle;

-- How far an exporter has come: every message and every life up to `message_id` and `life_id` was looked at; those that
-- had not ended by then are pending. `holder` is the process that exports now, as JSON.

create table trace_exports (
  target     text primary key constraint invalid_value check (target <> '' and instr(target, char(0)) = 0),
  message_id integer not null default 0 constraint invalid_value check (message_id between 0 and 1000000000000000),
  life_id    integer not null default 0 constraint invalid_value check (life_id between 0 and 1000000000000000),
  holder     text constraint invalid_json check (holder is null or json_valid(holder)),
  exported   integer not null default 0,
  updated_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
  constraint invalid_moment check (coalesce(datetime(julianday(updated_at)) = substr(updated_at, 1, 19) and length(updated_at) <= 23 and updated_at >= '0001' and substr(updated_at, 20) not glob '*[^.0-9]*', updated_at is null))
) strict, without rowid;

create table trace_exports_pending (
  target   text not null constraint invalid_value check (target <> '' and instr(target, char(0)) = 0),
  kind     text not null constraint invalid_value check (kind in ('message', 'life')),
  id       integer not null,
  delivery integer not null default 0,  -- the last delivery of a message whose span was sent: it may be redriven
  primary key (target, kind, id)
) strict, without rowid;
