-- Keep a value under a key; returns its version, which starts at 1 and grows, also over deletion and expiry. With
-- :if_version only when the present version is that one (0: there must be none). A value whose time is over counts as
-- not there.
/*postgres select pg_advisory_xact_lock(hashtextextended(:agent || ' ' || :key, 66)); */
-- unless :anyhow
insert into refusals
select 'version_conflict' where :if_version is not null and :if_version <> coalesce(
  (select version from agent_state
   where agent_id = :agent and state_key = :key and (expires_at is null or expires_at > :now)), 0);

insert into agent_state (agent_id, state_key, state_value, state_type, created_at, updated_at, expires_at)
values (:agent, :key, :value, coalesce(:type, 'user_data'), :now, :now,
  strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :ttl || ' seconds'))
on conflict (agent_id, state_key) do update set
  version = agent_state.version + 1,
  created_at = iif(agent_state.expires_at <= :now, :now, agent_state.created_at),
  state_type = iif(agent_state.expires_at <= :now, excluded.state_type, coalesce(:type, agent_state.state_type)),
  state_value = excluded.state_value, updated_at = :now, expires_at = excluded.expires_at
/*postgres returning version */;

-- For `returning` SQLite would make a temporary table.
/*sqlite*/
select version from agent_state where agent_id = :agent and state_key = :key;
/*end*/

-- unless :beaten
update agent_registry set last_heartbeat = :now
where agent_id = :agent and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');
