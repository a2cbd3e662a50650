"""Sources on their way to other processes."""
# SPDX-License-Identifier: Apache-2.0

import pickle

from vit_scaling.data.writing.image_files import CsvFile


def test_a_source_is_sent_without_its_list_of_images(tmp_path):
    (tmp_path / "list.csv").write_text("path,labels\na.png,cat\n")
    source = CsvFile(str(tmp_path / "list.csv"))
    assert len(source.entries()) == 1
    sent = pickle.loads(pickle.dumps(source))
    assert sent == source
    assert set(vars(sent)) == {"path", "separator"}
