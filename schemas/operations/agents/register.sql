-- Enter an agent into the registry, or, under an id that is there, start it again: active, in the session it names now.
-- The session is created when it is new, and begins anew when it was completed or abandoned; without an `:operation` a new
-- one is of planning where an agent that plans opens it, else of execution. What is null is left as it was (type and
-- session are always given).
insert into refusals
select 'unknown_type' where :operation is not null and not exists (select 1 from operation_types where name = :operation);

insert into coordination_sessions (session_id, milestone_id, operation_type, created_at, last_activity)
select :session, coalesce(:milestone, ''), coalesce(:operation, case when :type in ('milestone-planner',
  'scope-analyzer', 'estimation-agent', 'risk-assessor', 'kiro-strategy', 'planning-aggregator')
  then 'planning' else 'execution' end), :now, :now
where not exists (select 1 from coordination_sessions where session_id = :session)
on conflict (session_id) do nothing;

/*postgres
-- An agent that moves is counted in two sessions: in the order of their ids, and before itself, as who recovers one does.
select c.session_id from agent_registry r join coordination_sessions c on c.session_id in (r.session_id, :session)
where r.agent_id = :agent and r.session_id <> :session order by c.session_id for update of c;
*/
update coordination_sessions set operation_type = :operation where session_id = :session and operation_type <> :operation;

-- Of a session that ends and begins anew, what was saved before does not count (recovery/artifacts.sql, planned.sql), nor
-- the milestone that was made of it (milestones/of_session.sql); what dies in there from now on was interrupted.
update coordination_sessions set
  status = 'active', completed_at = null, progress = 0, phase = null, milestone_id = coalesce(:milestone, milestone_id),
  configuration =
    /*sqlite*/ json_set(iif(json_type(configuration) = 'object', json_remove(configuration, '$.restarted_at'), '{}'), '$.reopened_at', :now) /*end*/
    /*postgres (case when json_typeof(configuration) = 'object' then configuration::jsonb - 'restarted_at' else '{}' end
      || jsonb_build_object('reopened_at', replace(:now, ' ', ' ')))::json */
where session_id = :session and status in ('completed', 'abandoned');

-- What is overwritten here is when its former process was last heard of: that process's record, if it is open, is to end
-- then (lifecycle/enter.sql, lifecycle/close.sql).
/*postgres select agent_id from agent_registry where agent_id = :agent for update; */
update agent_lifecycle indexed by agent_lifecycle_open set last_seen_at = max(coalesce(last_seen_at, '0001-01-01'), (
  select last_heartbeat from agent_registry r where r.agent_id = :agent))
where status in ('spawned', 'running') and registry_id = :agent
  and pid = (select pid from agent_registry r where r.agent_id = :agent);

insert into agent_registry (agent_id, agent_type, milestone_id, session_id, capabilities, spawn_time, last_heartbeat,
  host, pid, pid_namespace, process_started_at, boot_id, command)
values (:agent, :type, coalesce(:milestone, ''), :session, coalesce(:capabilities, '[]'), :now, :now,
  :host, :pid, :pid_namespace, :process_started_at, :boot_id, :command)
on conflict (agent_id) do update set
  agent_type = excluded.agent_type, milestone_id = coalesce(:milestone, agent_registry.milestone_id), session_id = excluded.session_id,
  status = 'active', capabilities = coalesce(:capabilities, agent_registry.capabilities), spawn_time = :now, last_heartbeat = :now,
  completion_time = null, error_info = null, host = excluded.host, pid = excluded.pid,
  pid_namespace = excluded.pid_namespace, process_started_at = excluded.process_started_at, boot_id = excluded.boot_id,
  command = coalesce(:command, agent_registry.command);

update coordination_sessions set coordinator_id = :agent
where session_id = :session and coordinator_id is null and :type = 'milestone-coordinator';

select record from agent_records where agent_id = :agent;
