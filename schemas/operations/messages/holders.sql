-- Who holds leases that an agent could take: each holder with the identity of its process, as agents/identity.sql.
select distinct h.agent_id, h.host, h.pid, h.pid_namespace, h.process_started_at, h.boot_id
from agent_messages m join agent_registry h on h.agent_id = m.leased_by
where m.due_at is not null and m.status = 'leased' and h.pid is not null
  and m.mailbox in (:agent, (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent));
