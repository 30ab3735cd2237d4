-- The failed agents of a session that can be started again are taken to be started, once: by whoever runs this.
update agent_registry set
  status = 'spawning', spawn_time = :now, last_heartbeat = :now, completion_time = null,
  host = null, pid = null, pid_namespace = null, process_started_at = null, boot_id = null
where session_id = :session and status = 'failed' and command is not null
returning json_object('agent_id', agent_id, 'agent_type', agent_type, 'milestone_id', milestone_id,
  'session_id', session_id, 'command', command);
