-- A number that changes when another connection has written.
select data_version from pragma_data_version;
