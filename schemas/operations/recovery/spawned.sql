-- The process that an agent was started as, unless it has registered by itself.
update agent_registry set
  host = :host, pid = :pid, pid_namespace = :pid_namespace, process_started_at = :process_started_at, boot_id = :boot_id
where agent_id = :agent and status = 'spawning';
