-- The value under a key with its version, or no row when there is none or its time is over.
select state_value, version from agent_state
where agent_id = :agent and state_key = :key and (expires_at is null or expires_at > :now);
