-- Every agent's life, on record: who ran, for how long, how it ended, what it waited for. The same as
-- schemas/sqlite/0003_lifecycle.sql, which says how a record lives.

insert into agent_coordination_config (key, value, description) values
  ('lifecycle_retention_days', '90', 'days that the records of ended agents are kept'),
  ('health_retention_days', '30', 'days that the health log is kept'),
  ('unseen_after', '86400', 'seconds after which a traced agent that nobody here can see counts as killed');
insert into agent_coordination_config (key, value, description)
values ('bus_id', pg_catalog.replace(gen_random_uuid()::text, '-', ''), 'names this bus in exported traces');

create table agent_lifecycle (
  agent_id           bigint generated always as identity primary key,
  pid                bigint not null,
  agent_type         text collate "C" not null,
  task_id            text collate "C" not null,
  task_type          text,
  priority_number    text collate "C",  -- as it is written: 7, 1.5, 042
  spawned_at         moment not null default clock_timestamp(),
  started_at         moment,
  completed_at       moment,
  status             text collate "C" not null default 'spawned',
  exit_code          bigint,
  duration_ms        bigint,   -- from spawn to completion; worked out by a trigger
  idle_time_ms       bigint,   -- from spawn to start; worked out by a trigger
  command            text not null,
  worktree_path      text,
  error_message      text,
  metadata           note,
  registry_id        text collate "C",  -- its id in agent_registry, when it has one
  session_id         text collate "C",
  host               text,     -- what tells its process from all others, as in agent_registry
  pid_namespace      text,
  process_started_at bigint,
  boot_id            text,
  last_seen_at       moment,   -- when somebody last found it alive
  unseen             bigint not null default 0,  -- 1: it was found gone; how it ended nobody has said
  origin             text not null default 'recorded',  -- imported: its spawn, and sometimes its end, are not known
  output_tail        text,     -- the last of what it printed
  traceparent        trace_context,  -- what it was started by
  constraint invalid_value check (agent_id between 1 and 1000000000000000
    and pid between 1 and 4294967296 and length(agent_type) between 1 and 128
    and length(task_id) between 1 and 1024 and (priority_number is null or length(priority_number) between 1 and 64)
    and unseen in (0, 1) and origin in ('recorded', 'imported')),
  constraint invalid_status check (status in ('spawned', 'running', 'completed', 'failed', 'killed')
    and (status <> 'spawned' or (started_at is null and completed_at is null))
    and (status <> 'running' or (started_at is not null and completed_at is null))
    and (status <> 'completed' or (started_at is not null and (completed_at is not null or origin = 'imported')))
    and (status not in ('failed', 'killed') or completed_at is not null or origin = 'imported')
    and (unseen = 0 or status = 'killed')),
  constraint invalid_duration check (started_at >= spawned_at and completed_at >= coalesce(started_at, spawned_at))
);

create index idx_agent_type_status on agent_lifecycle (agent_type, status, duration_ms, idle_time_ms);
create index idx_priority_number on agent_lifecycle (priority_number, agent_type, spawned_at, completed_at, duration_ms);
create index idx_spawned_at on agent_lifecycle (spawned_at);
create index idx_duration on agent_lifecycle (duration_ms);
create index idx_task_id on agent_lifecycle (task_id);
create index agent_lifecycle_measures
  on agent_lifecycle (agent_type, duration_ms, status, spawned_at, completed_at, idle_time_ms);
create index agent_lifecycle_ended on agent_lifecycle (completed_at, status) where completed_at is not null;
create index agent_lifecycle_open on agent_lifecycle (registry_id) where status in ('spawned', 'running');
create index agent_lifecycle_registry on agent_lifecycle (registry_id, spawned_at) where registry_id is not null;
create unique index agent_lifecycle_imported on agent_lifecycle (pid, started_at) where origin = 'imported';

create function agent_lifecycle_measured() returns trigger language plpgsql as $$
begin
  new.duration_ms := round(extract(epoch from new.completed_at::timestamptz - new.spawned_at) * 1000);
  new.idle_time_ms := case when new.origin <> 'imported' then
    round(extract(epoch from new.started_at::timestamptz - new.spawned_at) * 1000) end;
  return new;
end $$;
create trigger agent_lifecycle_measured before insert or update on agent_lifecycle
for each row execute function agent_lifecycle_measured();

create function agent_lifecycle_check() returns trigger language plpgsql as $$
begin
  if new.agent_id <> old.agent_id or new.agent_type <> old.agent_type or new.task_id <> old.task_id
      or new.spawned_at <> old.spawned_at or new.origin <> old.origin then
    raise exception 'immutable: how an agent came to be does not change' using errcode = 'AB000';
  end if;
  if old.status in ('completed', 'failed', 'killed') and old.unseen = 0
      and (new.completed_at is distinct from old.completed_at or new.exit_code is distinct from old.exit_code) then
    raise exception 'already_ended' using errcode = 'AB000';
  end if;
  if new.status <> old.status and not (case old.status
      when 'spawned' then new.status in ('running', 'failed', 'killed')
      when 'running' then new.status in ('completed', 'failed', 'killed')
      when 'killed' then old.unseen = 1 and new.unseen = 0
      else false end) then
    raise exception 'illegal_transition: an agent is spawned, then running, then completed, failed or killed'
      using errcode = 'AB000';
  end if;
  return new;
end $$;
create trigger agent_lifecycle_check before update on agent_lifecycle
for each row execute function agent_lifecycle_check();

-- The four questions that are always asked.

create view agent_velocity as
select agent_type, count(*) as total_agents, count(*) filter (where status = 'completed') as completed,
  count(*) filter (where status = 'failed') as failed,
  avg(duration_ms)::double precision as avg_duration_ms, avg(idle_time_ms)::double precision as avg_idle_ms,
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
  count(*) as agent_count, sum(duration_ms)::bigint as total_time_ms, avg(duration_ms)::double precision as avg_time_ms
from agent_lifecycle where priority_number is not null group by priority_number, agent_type;

create view active_agents as
select agent_id, pid, agent_type, task_id, priority_number, status, spawned_at,
  round(extract(epoch from clock_timestamp() - spawned_at) * 1000)::bigint as elapsed_ms
from agent_lifecycle where status in ('spawned', 'running');

create view lifecycle_records as select *, json_build_object(
  'agent_id', agent_id, 'pid', pid, 'agent_type', agent_type, 'task_id', task_id, 'task_type', task_type,
  'priority_number', priority_number, 'spawned_at', replace(spawned_at, ' ', 'T') || 'Z',
  'started_at', replace(started_at, ' ', 'T') || 'Z', 'completed_at', replace(completed_at, ' ', 'T') || 'Z',
  'status', status, 'exit_code', exit_code, 'duration_ms', duration_ms, 'idle_time_ms', idle_time_ms,
  'command', command, 'worktree_path', worktree_path, 'error_message', error_message, 'metadata', metadata,
  'registry_id', registry_id, 'session_id', session_id, 'host', host,
  'last_seen_at', replace(last_seen_at, ' ', 'T') || 'Z', 'unseen', unseen = 1,
  'origin', origin, 'output_tail', output_tail, 'traceparent', traceparent) as record
from agent_lifecycle;

-- How far an exporter has come; see schemas/sqlite/0003_lifecycle.sql.

create table trace_exports (
  target     text collate "C" primary key,
  message_id bigint not null default 0,
  life_id    bigint not null default 0,
  holder     json,
  exported   bigint not null default 0,
  updated_at moment not null default clock_timestamp(),
  constraint invalid_value check (target <> '' and message_id between 0 and 1000000000000000
    and life_id between 0 and 1000000000000000)
);

create table trace_exports_pending (
  target   text collate "C" not null,
  kind     text collate "C" not null,
  id       bigint not null,
  delivery bigint not null default 0,  -- the last delivery of a message whose span was sent: it may be redriven
  primary key (target, kind, id),
  constraint invalid_value check (target <> '' and kind in ('message', 'life'))
);
