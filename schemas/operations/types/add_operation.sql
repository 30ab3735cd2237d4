-- Add an operation type with the artifacts it promises, or change one.
insert into operation_types (name, description, artifacts) values (:name, :description, :artifacts)
on conflict (name) do update set description = excluded.description, artifacts = excluded.artifacts;
