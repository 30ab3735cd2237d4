-- Add a state type, or change the description of one, unless that is null.
insert into state_types (name, description) values (:name, coalesce(:description, ''))
on conflict (name) do update set description = coalesce(:description, state_types.description);
