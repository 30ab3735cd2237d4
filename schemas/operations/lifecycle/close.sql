-- Close the records of processes that are gone, a JSON array of [record, pid]: killed, unseen, ended when last seen.
-- :alive, such an array too, is of those that were seen just now. Returns the closed records.
update agent_lifecycle set last_seen_at = :now
where agent_id in (select json_extract(value, '$[0]') from json_each(:alive)) and status in ('spawned', 'running');

update agent_lifecycle set
  status = 'killed', unseen = 1, error_message = 'its process was found gone',
  completed_at = max(spawned_at, coalesce(started_at, ''), coalesce(last_seen_at, ''), coalesce(
    (select last_heartbeat from agent_registry r where r.agent_id = registry_id and r.pid = agent_lifecycle.pid), ''))
where (agent_id, pid) in (select json_extract(value, '$[0]'), json_extract(value, '$[1]') from json_each(:dead))
  and status in ('spawned', 'running');

select record from lifecycle_records
where agent_id in (select json_extract(value, '$[0]') from json_each(:dead)) and status = 'killed' and unseen
order by agent_id;
