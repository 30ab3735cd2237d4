-- The agents that have not ended and gave a process, as agents/identity.sql.
select agent_id, host, pid, pid_namespace, process_started_at, boot_id from agent_registry
where pid is not null and status not in ('completed', 'failed', 'terminated');
