-- The process that an agent registered, as agents/identity.sql, and whether the agent has ended.
select host, pid, pid_namespace, process_started_at, boot_id, status in ('completed', 'failed', 'terminated')
from agent_registry where agent_id = :agent;
