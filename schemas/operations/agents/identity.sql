-- The process that an agent registered: host, pid and what tells it from another process under the same pid.
select agent_id, host, pid, pid_namespace, process_started_at, boot_id from agent_registry where agent_id = :agent;
