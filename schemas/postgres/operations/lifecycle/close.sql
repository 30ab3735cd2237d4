-- Differs: an array within an array is read by an operator of jsonb; else as in schemas/operations.
update agent_lifecycle set last_seen_at = :now
where agent_id in (select (value ->> 0)::bigint from jsonb_array_elements(:alive::jsonb)) and status in ('spawned', 'running');

update agent_lifecycle l set
  status = 'killed', unseen = 1, error_message = 'its process was found gone',
  completed_at = greatest(spawned_at, started_at, last_seen_at, (
    select last_heartbeat from agent_registry r where r.agent_id = registry_id and r.pid = l.pid))
where (agent_id, pid) in (
    select (value ->> 0)::bigint, (value ->> 1)::bigint from jsonb_array_elements(:dead::jsonb))
  and status in ('spawned', 'running');

select record from lifecycle_records
where agent_id in (select (value ->> 0)::bigint from jsonb_array_elements(:dead::jsonb)) and status = 'killed' and unseen = 1
order by agent_id;
