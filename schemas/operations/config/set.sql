-- Change a setting that is there.
insert into refusals
select 'unknown_setting' where not exists (select 1 from agent_coordination_config where key = :key);

update agent_coordination_config set value = :value, updated_at = :now where key = :key;
