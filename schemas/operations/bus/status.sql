-- The bus in numbers: one JSON object.
select json_object(
  'sessions', (select json_group_object(status, n) from (select status, count(*) as n from coordination_sessions group by status) counted),
  'agents', (select json_group_object(status, n) from (select status, count(*) as n from agent_registry group by status) counted),
  'messages', (select json_group_object(status, n) from (select status, count(*) as n from agent_messages group by status) counted),
  'oldest_ready', (select replace(min(created_at), ' ', 'T') || 'Z' from agent_messages where status = 'ready'),
  'state_keys', (select count(*) from agent_state where expires_at is null or expires_at > :now),
  'checkpoints', (select count(*) from agent_checkpoints));
