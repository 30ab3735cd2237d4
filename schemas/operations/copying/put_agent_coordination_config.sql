-- Made by bin/generate: puts a row into agent_coordination_config, as it was taken; see bus/copying.py.
insert into agent_coordination_config (key, value, description, updated_at) values (
  :key,
  :value,
  :description,
  strftime('%Y-%m-%d %H:%M:%f', :updated_at));
