-- The bus in numbers: one JSON object. `written` is what was sent and acknowledged in the last minute, of the newest
-- twenty thousand messages.
select json_object(
  'sessions', (select json_group_object(status, n) from (select status, count(*) as n from coordination_sessions group by status) counted),
  'agents', (select json_group_object(status, n) from (select status, count(*) as n from agent_registry group by status) counted),
  'messages', (select json_group_object(status, n) from (select status, count(*) as n from agent_messages group by status) counted),
  'oldest_ready', (select replace(min(created_at), ' ', 'T') || 'Z' from agent_messages where status = 'ready'),
  'state_keys', (select count(*) from agent_state where expires_at is null or expires_at > :now),
  'checkpoints', (select count(*) from agent_checkpoints),
  'milestones', (select count(*) from (
    select id from milestones
    union
    select milestone_id from coordination_sessions where milestone_id <> '' and status in ('active', 'paused')) known),
  'written', (select count(case when created_at > strftime('%Y-%m-%d %H:%M:%f', :now, '-60 seconds') then 1 end)
      + count(case when acknowledged_at > strftime('%Y-%m-%d %H:%M:%f', :now, '-60 seconds') then 1 end)
    from agent_messages where id > (select max(id) from agent_messages) - 20000));
