-- The artifacts that an operation type promises.
select artifacts from operation_types where name = :name;
