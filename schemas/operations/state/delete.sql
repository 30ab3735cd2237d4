-- Forget a value; returns a row when there was one.
delete from agent_state where agent_id = :agent and state_key = :key
returning expires_at is null or expires_at > :now;
