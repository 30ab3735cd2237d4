-- Give back at once everything that an agent has leased, because it is dead or retired; returns id, address and status.
-- Past the retry limit a message is dead instead, and tells who had it.
/*postgres
select id from agent_messages where due_at is not null and leased_by = :agent and status = 'leased' order by id for update;
*/
update agent_messages set
  status = iif(retry_count >= retry_limit, 'dead', 'ready'),
  dead_reason = iif(retry_count >= retry_limit, 'retries_exhausted', null),
  due_at = iif(retry_count >= retry_limit, null, expires_at),
  retry_count = retry_count + iif(retry_count < retry_limit, 1, 0),
  leased_by = case when retry_count >= retry_limit then leased_by end
from (select (select cast(value as double precision) from agent_coordination_config
  where key = 'message_retry_limit') as retry_limit) settings
where due_at is not null and leased_by = :agent and status = 'leased'
returning id, to_agent, status;
