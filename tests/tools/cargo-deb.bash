# For scripts of this folder: puts cargo-deb in the path. They have $target, the folder of builds.
version_of_cargo_deb=3.8.0
export PATH="$target/tools/deb/bin:$PATH"
if [ "$(cargo-deb --version 2>/dev/null)" != "cargo-deb $version_of_cargo_deb" ]; then
    cargo install cargo-deb --version "$version_of_cargo_deb" --locked --force --quiet --debug --root "$target/tools/deb"
fi
