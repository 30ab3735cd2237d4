-- Remove the messages between two that were acknowledged cleanup_retention_days ago; their ids. The newest message of all
-- stays, so that its id is never used again.
delete from agent_messages
where id > :after and id <= :last and id < (select max(id) from agent_messages) and status = 'acknowledged'
  and acknowledged_at <= strftime('%Y-%m-%d %H:%M:%f', :now,
    '-' || (select value from agent_coordination_config where key = 'cleanup_retention_days') || ' days')
returning id;
