-- Add an agent type, or change the description of one, unless that is null.
insert into agent_types (name, description) values (:name, coalesce(:description, ''))
on conflict (name) do update set description = coalesce(:description, agent_types.description);
