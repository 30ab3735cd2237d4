-- Made by bin/generate: puts a row into agent_state, as it was taken; see bus/copying.py.
insert into agent_state (agent_id, state_key, state_type, version, created_at, updated_at, expires_at, state_value) values (
  :agent_id,
  :state_key,
  :state_type,
  cast(:version as bigint),
  strftime('%Y-%m-%d %H:%M:%f', :created_at),
  strftime('%Y-%m-%d %H:%M:%f', :updated_at),
  strftime('%Y-%m-%d %H:%M:%f', :expires_at),
  :state_value);
