-- Who holds leases, as agents/identity.sql.
select agent_id, host, pid, pid_namespace, process_started_at, boot_id from agent_registry
where agent_id in (select leased_by from agent_messages where due_at is not null and status = 'leased')
order by 1;
