-- The failed agents of a session that can be started again are taken to be started, once: by whoever runs this; but for
-- those who failed before the session was opened again.
-- When they were last heard of stays on the records of their processes, as in agents/register.sql.
/*postgres
select agent_id from agent_registry
where session_id = :session and status = 'failed' and command is not null
  and last_heartbeat >= coalesce((select strftime('%Y-%m-%d %H:%M:%f', configuration ->> 'reopened_at')
    from coordination_sessions where session_id = :session), '0001-01-01')
order by agent_id for update;
*/
update agent_lifecycle indexed by agent_lifecycle_open set last_seen_at = max(coalesce(last_seen_at, '0001-01-01'), (
  select last_heartbeat from agent_registry r where r.agent_id = registry_id))
where status in ('spawned', 'running') and (registry_id, pid) in (
  select agent_id, pid from agent_registry
  where session_id = :session and status = 'failed' and command is not null
    and last_heartbeat >= coalesce((select strftime('%Y-%m-%d %H:%M:%f', configuration ->> 'reopened_at')
      from coordination_sessions where session_id = :session), '0001-01-01'));

update agent_registry set
  status = 'spawning', spawn_time = :now, last_heartbeat = :now, completion_time = null,
  host = null, pid = null, pid_namespace = null, process_started_at = null, boot_id = null
where session_id = :session and status = 'failed' and command is not null
  and last_heartbeat >= coalesce((select strftime('%Y-%m-%d %H:%M:%f', configuration ->> 'reopened_at')
    from coordination_sessions where session_id = :session), '0001-01-01')
returning json_object('agent_id', agent_id, 'agent_type', agent_type, 'milestone_id', milestone_id,
  'session_id', session_id, 'command', command);
