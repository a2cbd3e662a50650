"""Keep pytest from importing what only the peers' own interpreters can run."""
# SPDX-License-Identifier: Apache-2.0

collect_ignore_glob = ["peers/*.py"]
