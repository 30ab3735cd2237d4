-- Remove state whose time is over, or that was deleted, for a day: so many rows at most. Returns their keys.
delete from agent_state
where (agent_id, state_key) in (
  select agent_id, state_key from agent_state
  where expires_at <= strftime('%Y-%m-%d %H:%M:%f', :now, '-1 days')
    and updated_at <= strftime('%Y-%m-%d %H:%M:%f', :now, '-1 days')
  limit :limit)
returning state_key;
