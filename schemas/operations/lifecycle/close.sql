-- Close the records of processes that are gone, a JSON array of [record, pid]: killed, unseen, ended when last seen.
-- :alive, an array of records, are those that were seen just now. Returns the closed records.
update agent_lifecycle set last_seen_at = :now
where agent_id in (select cast(value as integer) from json_each(:alive)) and status in ('spawned', 'running');

update agent_lifecycle set
  status = 'killed', unseen = 1, error_message = 'its process was found gone',
  completed_at = max(
    max(spawned_at, coalesce(started_at, '0001-01-01')),
    max(coalesce(last_seen_at, '0001-01-01'), coalesce((
      select last_heartbeat from agent_registry r where r.agent_id = registry_id and r.pid = agent_lifecycle.pid),
      '0001-01-01')))
where (agent_id, pid) in (
    select cast(value ->> 0 as integer), cast(value ->> 1 as integer) from json_each(:dead /*postgres ::jsonb */))
  and status in ('spawned', 'running');

select record from lifecycle_records
where agent_id in (select cast(value ->> 0 as integer) from json_each(:dead /*postgres ::jsonb */))
  and status = 'killed' and unseen = 1
order by agent_id;
