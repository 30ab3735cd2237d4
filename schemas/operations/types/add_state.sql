-- Add a state type, or change the description of one.
insert into state_types (name, description) values (:name, :description)
on conflict (name) do update set description = excluded.description;
