-- The bus in numbers: one JSON object. `written` is what was sent and acknowledged in the last minute, of the newest
-- twenty thousand messages. Messages are counted as whoever receives next would make them: see messages/messages.sql.
select json_object(
  'sessions', (select json_group_object(status, n) from (select status, count(*) as n from coordination_sessions group by status order by 1) counted),
  'agents', (select json_group_object(status, n) from (select status, count(*) as n from agent_registry group by status order by 1) counted),
  'messages', (select json_group_object(status, n) from (
    select case
      when expires_at <= :now and status in ('scheduled', 'ready') and leased_by is null then 'dead'
      when due_at <= :now and status = 'scheduled' then 'ready'
      else status end as status,
      count(*) as n
    from agent_messages group by 1 order by 1) counted),
  'oldest_ready', (select replace(min(created_at), ' ', 'T') || 'Z' from agent_messages
    where (status = 'ready' or (status = 'scheduled' and due_at <= :now)) and (expires_at is null or expires_at > :now)),
  'state_keys', (select count(*) from agent_state where expires_at is null or expires_at > :now),
  'checkpoints', (select count(*) from agent_checkpoints),
  'milestones', (select count(*) from (
    select id from milestones
    union
    select milestone_id from coordination_sessions where milestone_id <> '' and status in ('active', 'paused')) known),
  'written', (select count(case when created_at > strftime('%Y-%m-%d %H:%M:%f', :now, '-60 seconds') then 1 end)
      + count(case when acknowledged_at > strftime('%Y-%m-%d %H:%M:%f', :now, '-60 seconds') then 1 end)
    from agent_messages where id > (select max(id) from agent_messages) - 20000));
